/**
 * Traces as services would send them, in OTLP/JSON. Ids are random, so that runs against one server do not meet;
 * everything else is fixed, so that a test knows what it looks for.
 */
import { randomBytes } from 'node:crypto';

type Value = string | number | boolean;
export type Attrs = Record<string, Value>;
export type SentSpan = {
  id: string; parent: string | null; service: string; name: string; kind: number;
  /** Milliseconds from the trace's start. */
  at: number; ms: number;
  attributes: Attrs; error?: string; events: { at: number; name: string; attributes: Attrs }[];
};
export type SentLog = { at: number; service: string; severity: number; text: string; message: string; span: string | null; attributes: Attrs };
/** `sampled` is what the log lines say of their trace. */
export type SentTrace = { id: string; startMs: number; spans: SentSpan[]; logs: SentLog[]; sampled: boolean };

export const newId = (bytes: number) => randomBytes(bytes).toString('hex');

const INTERNAL = 1;
const SERVER = 2;
const CLIENT = 3;
const INFO = 9;
const WARN = 13;
const ERROR = 17;
const LEVEL: Record<number, string> = { 5: 'DEBUG', 9: 'INFO', 13: 'WARN', 17: 'ERROR' };

class Recorder {
  readonly trace: SentTrace;
  constructor(startMs: number) {
    this.trace = { id: newId(16), startMs, spans: [], logs: [], sampled: true };
  }
  span(parent: SentSpan | null, service: string, name: string, kind: number, at: number, ms: number, attributes: Attrs = {}): SentSpan {
    const s: SentSpan = { id: newId(8), parent: parent?.id ?? null, service, name, kind, at, ms, attributes, events: [] };
    this.trace.spans.push(s);
    return s;
  }
  log(span: SentSpan | null, at: number, severity: number, message: string, attributes: Attrs = {}): void {
    this.trace.logs.push({ at, service: span?.service ?? 'api-gateway', severity, text: LEVEL[severity]!, message, span: span?.id ?? null, attributes: { logger: `${(span?.service ?? 'api_gateway').replace('-', '_')}::handlers`, ...attributes } });
  }
}

export const STACK = `engine.nodes.NodeFailed: node "summarise" failed after 3 attempts
    at workflow_engine::nodes::llm::run (src/nodes/llm.rs:142)
    at workflow_engine::executor::step (src/executor.rs:88)
    at workflow_engine::executor::run (src/executor.rs:41)
caused by: llm.RateLimited: 429 Too Many Requests, retry after 20 s`;

/** A workflow that fails in its second node, over four services, with AI calls, SQL, a retry and (if asked) a clock that runs ahead. */
export function failedWorkflow(startMs: number, engineAheadMs = 0): SentTrace {
  const r = new Recorder(startMs);
  const d = engineAheadMs;
  const root = r.span(null, 'api-gateway', 'POST /api/workflows/{id}/execute', SERVER, 0, 1840, { 'http.request.method': 'POST', 'http.route': '/api/workflows/{id}/execute', 'http.response.status_code': 502, 'user.id': 'u-1042', 'client.address': '10.4.1.17' });
  r.log(root, 1, INFO, 'request received', { 'request.method': 'POST', 'request.path': '/api/workflows/wf-81/execute' });
  const auth = r.span(root, 'api-gateway', 'authenticate', INTERNAL, 3, 21, { 'auth.scheme': 'bearer' });
  r.span(auth, 'api-gateway', 'SELECT sessions', CLIENT, 5, 16, { 'db.system.name': 'sqlite', 'db.query.text': 'SELECT id, user_id, status\nFROM sessions\nWHERE id = ? AND status = ?', 'db.collection.name': 'sessions', 'db.operation.name': 'SELECT', 'db.response.returned_rows': 1 });
  r.log(auth, 20, 5, 'session s-77 is valid');
  const plan = r.span(root, 'api-gateway', 'POST workflow-agent/plan', CLIENT, 30, 604, { 'server.address': 'workflow-agent', 'server.port': 8001 });
  const agent = r.span(plan, 'workflow-agent', 'POST /plan', SERVER, 36, 590, { 'http.route': '/plan', 'http.response.status_code': 200 });
  r.log(agent, 38, INFO, 'planning workflow wf-81 with 4 nodes');
  const chat = r.span(agent, 'workflow-agent', 'chat claude-sonnet', CLIENT, 61, 498, { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'stand-in', 'gen_ai.request.model': 'claude-sonnet', 'gen_ai.usage.input_tokens': 1874, 'gen_ai.usage.output_tokens': 412, 'cost.usd': 0.011802 });
  chat.events.push({ at: 190, name: 'gen_ai.first_token', attributes: { 'ms': 129 } });
  r.span(chat, 'workflow-agent', 'HTTP POST', CLIENT, 63, 490, { 'url.full': 'http://llm.local/v1/chat/completions', 'http.response.status_code': 200 });
  r.log(agent, 566, INFO, 'plan ready: fetch, summarise, classify, store');
  const run = r.span(root, 'api-gateway', 'POST workflow-engine/executions', CLIENT, 650, 1170, { 'server.address': 'workflow-engine', 'server.port': 8002, 'http.response.status_code': 500 });
  run.error = 'HTTP 500';
  const engine = r.span(run, 'workflow-engine', 'POST /executions', SERVER, 661 + d, 1148, { 'http.route': '/executions', 'workflow.id': 'wf-81', 'workflow.nodes': 4 });
  engine.error = 'node "summarise" failed';
  r.log(engine, 664 + d, INFO, 'execution ex-9001 started', { 'workflow.id': 'wf-81' });
  r.span(engine, 'workflow-engine', 'INSERT workflow_executions', CLIENT, 668 + d, 12, { 'db.system.name': 'sqlite', 'db.query.text': 'INSERT INTO workflow_executions (id, workflow_id, tracking_id, status) VALUES (?, ?, ?, ?)', 'db.collection.name': 'workflow_executions', 'db.operation.name': 'INSERT' });
  const fetch = r.span(engine, 'workflow-engine', 'node fetch', INTERNAL, 690 + d, 240, { 'node.type': 'http', 'node.attempt': 1 });
  r.span(fetch, 'workflow-engine', 'GET example.test', CLIENT, 694 + d, 231, { 'http.request.method': 'GET', 'url.full': 'https://example.test/articles/17?lang=en', 'http.response.status_code': 200, 'http.response.body.size': 48213 });
  r.log(fetch, 928 + d, 5, 'fetched 48 kB');
  const summarise = r.span(engine, 'workflow-engine', 'node summarise', INTERNAL, 940 + d, 840, { 'node.type': 'llm', 'node.attempts': 3 });
  summarise.error = 'llm.RateLimited: 429 Too Many Requests';
  for (const [attempt, at] of [940, 1210, 1540].entries()) {
    const call = r.span(summarise, 'workflow-engine', 'chat claude-haiku', CLIENT, at + 6 + d, 180, { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'stand-in', 'gen_ai.request.model': 'claude-haiku', 'gen_ai.usage.input_tokens': 5210, 'gen_ai.usage.output_tokens': 0, 'cost.usd': 0.0041, 'http.response.status_code': 429, 'retry.attempt': attempt });
    call.error = '429 Too Many Requests';
    if (attempt < 2) r.log(summarise, at + 190 + d, WARN, `attempt ${attempt + 1} of 3 was rate limited, waiting`, { 'retry.after_ms': 80 * (attempt + 1) });
  }
  summarise.events.push({ at: 1735 + d, name: 'exception', attributes: { 'exception.type': 'engine.nodes.NodeFailed', 'exception.message': 'node "summarise" failed after 3 attempts', 'exception.stacktrace': STACK } });
  r.log(summarise, 1736 + d, ERROR, 'node "summarise" failed after 3 attempts', { 'error.type': 'engine.nodes.NodeFailed', 'code.file.path': 'src/nodes/llm.rs', 'code.line.number': 142 });
  const mark = r.span(engine, 'workflow-engine', 'UPDATE workflow_executions', CLIENT, 1788 + d, 9, { 'db.system.name': 'sqlite', 'db.query.text': 'UPDATE workflow_executions SET status = ? WHERE id = ?', 'db.collection.name': 'workflow_executions', 'db.operation.name': 'UPDATE' });
  r.log(mark, 1797 + d, INFO, 'execution ex-9001 marked failed');
  const note = r.span(engine, 'workflow-engine', 'POST workflow-scheduler/retries', CLIENT, 1799 + d, 8, {});
  r.span(note, 'workflow-scheduler', 'POST /retries', SERVER, 1801 + d, 5, { 'http.route': '/retries', 'http.response.status_code': 202 });
  root.error = 'HTTP 502';
  r.log(root, 1838, ERROR, 'request failed', { 'response.status': 502, 'error.type': 'UpstreamFailed', 'request.duration_ms': 1838 });
  return r.trace;
}

export function ordinaryChat(startMs: number): SentTrace {
  const r = new Recorder(startMs);
  const root = r.span(null, 'api-gateway', 'POST /api/chat', SERVER, 0, 412, { 'http.request.method': 'POST', 'http.route': '/api/chat', 'http.response.status_code': 200 });
  const call = r.span(root, 'api-gateway', 'POST workflow-agent/chat', CLIENT, 8, 398, {});
  const agent = r.span(call, 'workflow-agent', 'POST /chat', SERVER, 11, 391, { 'http.route': '/chat' });
  r.span(agent, 'workflow-agent', 'chat claude-sonnet', CLIENT, 20, 371, { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'stand-in', 'gen_ai.request.model': 'claude-sonnet', 'gen_ai.usage.input_tokens': 320, 'gen_ai.usage.output_tokens': 118, 'cost.usd': 0.00273 });
  r.log(root, 410, INFO, 'request completed', { 'response.status': 200 });
  return r.trace;
}

/** A batch job that touches `count` items: wide and some levels deep, an error every 997 spans. */
export function hugeJob(startMs: number, count: number): SentTrace {
  const r = new Recorder(startMs);
  const root = r.span(null, 'workflow-scheduler', 'nightly job', INTERNAL, 0, count / 10, { 'job.items': count });
  const path: SentSpan[] = [root];
  for (let i = 1; i < count; i++) {
    const depth = 1 + (i % 7 === 0 ? 0 : Math.min(path.length - 1, (i * 7919) % 6));
    path.length = depth;
    const parent = path[depth - 1]!;
    const span = r.span(parent, ['workflow-scheduler', 'workflow-engine', 'workflow-agent', 'api-gateway'][depth % 4]!, `step ${i % 40} of depth ${depth}`, INTERNAL, i / 10, 0.4 + ((i * 104729) % 1000) / 120, { 'item.index': i });
    if (i % 997 === 0) span.error = 'item was refused';
    if (i % 500 === 0) r.log(span, i / 10, INFO, `item ${i} done`);
    path.push(span);
  }
  return r.trace;
}

const any = (v: Value) => (typeof v === 'string' ? { stringValue: v } : typeof v === 'boolean' ? { boolValue: v } : Number.isInteger(v) ? { intValue: String(v) } : { doubleValue: v });
const keyValues = (a: Attrs) => Object.entries(a).map(([key, v]) => ({ key, value: any(v) }));
const resource = (service: string) => ({ attributes: keyValues({ 'service.name': service, 'service.version': '1.4.2', 'service.instance.id': `${service}-1`, 'deployment.environment.name': 'test', 'host.name': `${service}.local` }) });

function byService<T extends { service: string }>(items: T[]): [string, T[]][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const g = groups.get(item.service);
    if (g) g.push(item);
    else groups.set(item.service, [item]);
  }
  return [...groups];
}

export function otlpTraces(t: SentTrace, spans = t.spans): object {
  const nano = (ms: number) => String(BigInt(t.startMs) * 1_000_000n + BigInt(Math.round(ms * 1e6)));
  return {
    resourceSpans: byService(spans).map(([service, list]) => ({
      resource: resource(service),
      scopeSpans: [{
        scope: { name: `${service.replace('-', '_')}::http`, version: '0.1.0' },
        spans: list.map((s) => ({
          traceId: t.id, spanId: s.id, parentSpanId: s.parent ?? '', name: s.name, kind: s.kind, flags: 257,
          startTimeUnixNano: nano(s.at), endTimeUnixNano: nano(s.at + s.ms), attributes: keyValues(s.attributes),
          events: s.events.map((e) => ({ timeUnixNano: nano(e.at), name: e.name, attributes: keyValues(e.attributes) })),
          status: s.error ? { code: 2, message: s.error } : {},
        })),
      }],
    })),
  };
}

export function otlpLogs(t: SentTrace): object {
  const nano = (ms: number) => String(BigInt(t.startMs) * 1_000_000n + BigInt(Math.round(ms * 1e6)));
  return {
    resourceLogs: byService(t.logs).map(([service, list]) => ({
      resource: resource(service),
      scopeLogs: [{
        scope: { name: service },
        logRecords: list.map((l) => ({
          timeUnixNano: nano(l.at), observedTimeUnixNano: nano(l.at), severityNumber: l.severity, severityText: l.text,
          body: { stringValue: l.message }, attributes: keyValues(l.attributes), traceId: t.id, ...(l.span ? { spanId: l.span } : {}), flags: t.sampled ? 1 : 0,
        })),
      }],
    })),
  };
}
