/**
 * Trackline's own JSON API (`/api/trackline/v1`), typed. Instants are strings of decimal nanoseconds, because they
 * do not fit a double; offsets and durations are numbers of nanoseconds from the trace's start.
 */

export type Status = 'found' | 'partial' | 'not_sampled' | 'expired' | 'unknown';
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Attributes = { [key: string]: Json };

export type Span = {
  span_id: string;
  parent_span_id: string | null;
  service: string;
  instance?: string;
  operation: string;
  kind: string;
  offset_ns: number;
  duration_ns: number;
  status: 'unset' | 'ok' | 'error';
  status_message: string;
  depth: number;
  orphan: boolean;
  /** Added to the span's times it puts the span where its parent's clock allows it; 0 where the clocks agree. */
  skew_ns: number;
  attributes?: Attributes;
  resource?: number | Attributes;
  scope?: string;
  events?: { offset_ns: number; name: string; attributes: Attributes }[];
  links?: { trace_id: string; span_id: string; attributes: Attributes }[];
};

export type Trace = {
  start_unix_nano: string;
  duration_ns: number;
  root: { service: string; operation: string } | null;
  services: { name: string; spans: number; errors: number }[];
  span_count: number;
  error_count: number;
  depth: number;
  detail: 'full' | 'outline';
  clock_skew: boolean;
  spans: Span[];
  resources?: Attributes[];
};

export type LogLine = {
  time_unix_nano: string;
  offset_ns: number;
  service: string;
  level: string;
  message: string;
  span_id: string | null;
  logger?: string | null;
  attributes?: Attributes;
  body?: Json;
};

export type Failure = {
  span_id: string | null;
  service: string;
  type: string;
  message: string;
  stack: string | null;
  offset_ns: number;
  source: 'event' | 'status' | 'log';
  /** What its callers made of it, from the failure up. */
  seen_in?: SeenIn[];
  seen_in_cut?: number;
};

/** One failure as another layer told of it; no message where it said no more than that it failed. */
export type SeenIn = {
  span_id: string | null;
  service: string;
  operation: string;
  type: string;
  message: string;
  stack: string | null;
  offset_ns: number;
  source: 'event' | 'status' | 'log';
};

export type AiCall = {
  span_id: string;
  service: string;
  model: string;
  provider: string;
  input_tokens: number;
  output_tokens: number;
  /** Null where the service did not say. */
  cost_usd: number | null;
  duration_ns: number;
  error: string | null;
};

export type Story = {
  tracking_id: string;
  status: Status;
  explanation: string;
  trace: Trace | null;
  logs: LogLine[];
  errors: Failure[];
  ai: { calls: AiCall[]; input_tokens: number; output_tokens: number; cost_usd: number } | null;
  rows: { source: string; table: string; columns: string[]; rows: Json[][]; cut?: boolean }[];
  rows_error: string | null;
  more: { spans_cut: number; logs_cut: number; errors_cut?: number };
};

export type Summary = {
  tracking_id: string;
  root: { service: string; operation: string } | null;
  start_unix_nano: string;
  duration_ns: number;
  span_count: number;
  error_count: number;
  services: (string | { name: string })[];
  status_code: number | null;
};

/** What the server said was wrong, and what to do about it. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly hint: string) {
    super(message);
  }
}

const BASE = '/api/trackline/v1';

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(BASE + path, { headers: { accept: 'application/json' }, ...(signal ? { signal } : {}) });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new ApiError(0, 'The server did not answer.', 'Is `trackline serve` still running? The page tries again by itself.');
  }
  const text = await response.text();
  if (response.ok) return parse<T>(text);
  let said: { error?: string; hint?: string } = {};
  try { said = JSON.parse(text) as typeof said; } catch { /* a proxy's page is no JSON; the status says enough */ }
  throw new ApiError(response.status, said.error ?? `The server answered ${response.status}.`, said.hint ?? '');
}

/** An integer with so many digits may not fit a double. */
const LONG_INTEGER = /[:[,]\s*-?\d{16,}\s*[,\]}]/;

/** Attribute values of 64 bits keep their digits: what a double cannot hold becomes a string, where the browser lets us see the source. */
function parse<T>(text: string): T {
  if (!LONG_INTEGER.test(text)) return JSON.parse(text) as T;
  const exact = (_: string, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value;
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown) as T;
}

export const tracking = (id: string, signal?: AbortSignal) =>
  get<Story>(`/tracking/${encodeURIComponent(id)}?detail=auto`, signal);

export const spanInFull = (id: string, span: string, signal?: AbortSignal) =>
  get<Span>(`/tracking/${encodeURIComponent(id)}/spans/${encodeURIComponent(span)}`, signal);

export const services = async (signal?: AbortSignal) =>
  names((await get<{ services: unknown[] }>('/services', signal)).services);

export const operations = async (service: string, signal?: AbortSignal) =>
  names((await get<{ operations: unknown[] }>(`/services/${encodeURIComponent(service)}/operations`, signal)).operations);

export const search = async (query: URLSearchParams, signal?: AbortSignal) =>
  (await get<{ traces: Summary[] }>(`/search?${query}`, signal)).traces;

/** Lists of names come as strings or as objects with a `name`. */
function names(list: unknown[]): string[] {
  return list.map((x) => (typeof x === 'string' ? x : (x as { name: string }).name));
}
