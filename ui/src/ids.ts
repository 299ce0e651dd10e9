/**
 * What a person pastes → a tracking ID of 32 hex digits. The server understands the same forms; parsing here
 * makes the link canonical before anything is asked, and gives an answer while typing.
 */

export type Form = 'hex' | 'short hex' | 'uuid' | 'traceparent' | 'header' | 'base64' | 'text';
export type Parsed = { id: string; form: Form };

const HEX32 = /^(?:0x)?([0-9a-f]{32})$/;
const SHORT_HEX = /^(?:0x)?([0-9a-f]{1,31})$/;
const UUID = /^\{?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\}?$/;
const TRACEPARENT = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/;
const HEADER = /^(?:x-tracking-id|traceparent|x-trace-id|tracking[_-]?id|trace[_-]?id)["']?\s*[:=]\s*["']?(.+?)["',;]*$/i;
/** 16 bytes are 22 characters of base64, with or without their padding; URL-safe letters too. */
const BASE64_16 = /^[A-Za-z0-9+/_-]{22}(==)?$/;
/** An id inside a longer text, such as a pasted log line. */
const WITHIN = /(?:^|[^0-9a-z]|\b0x)([0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-z])/gi;

const NO_ID = '0'.repeat(32);

/** The id in `text`, or null when no known form fits. */
export function parseId(text: string): Parsed | null {
  const trimmed = text.replace(/^[\s"']+|[\s"',;]+$/g, '');
  const direct = parseBare(trimmed);
  if (direct) return direct;
  const header = HEADER.exec(trimmed);
  if (header) {
    const value = parseBare(header[1]!.trim());
    if (value) return { id: value.id, form: 'header' };
  }
  return parseWithin(trimmed);
}

function parseBare(text: string): Parsed | null {
  const lower = text.toLowerCase();
  let found: Parsed | null = null;
  let m: RegExpExecArray | null;
  if ((m = HEX32.exec(lower))) found = { id: m[1]!, form: 'hex' };
  else if ((m = SHORT_HEX.exec(lower))) found = { id: m[1]!.padStart(32, '0'), form: 'short hex' };
  else if ((m = UUID.exec(lower))) found = { id: m.slice(1, 6).join(''), form: 'uuid' };
  else if ((m = TRACEPARENT.exec(lower))) found = { id: m[1]!, form: 'traceparent' };
  else if (BASE64_16.test(text)) found = { id: base64ToHex(text), form: 'base64' };
  return found && found.id !== NO_ID ? found : null;
}

/** A longer text is taken only when it names one id, so that two are never confused. */
function parseWithin(text: string): Parsed | null {
  const ids = new Set<string>();
  for (const m of text.matchAll(WITHIN)) ids.add(m[1]!.toLowerCase().replaceAll('-', ''));
  ids.delete(NO_ID);
  if (ids.size !== 1) return null;
  return { id: [...ids][0]!, form: 'text' };
}

function base64ToHex(text: string): string {
  const bytes = atob(text.replaceAll('-', '+').replaceAll('_', '/').slice(0, 22) + '==');
  let hex = '';
  for (let i = 0; i < bytes.length; i++) hex += bytes.charCodeAt(i).toString(16).padStart(2, '0');
  return hex;
}
