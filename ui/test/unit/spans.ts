/** Spans for tests of pure parts, with only what matters spelled out. */
import type { Span } from '../../src/api.ts';

export function span(id: string, depth: number, offset: number, length: number, more: Partial<Span> = {}): Span {
  return { span_id: id, parent_span_id: null, service: 's', instance: '', operation: id, kind: 'internal', offset_ns: offset, duration_ns: length, status: 'unset', status_message: '', depth, orphan: false, skew_ns: 0, ...more };
}
