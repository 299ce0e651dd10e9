/** Everything about the selected span. An outline has no attributes; they are fetched when a span is looked at. */
import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { ApiError, spanInFull, type Attributes, type Json, type Span } from '../api.ts';
import { serviceColour } from '../colour.ts';
import { Copy } from '../copy.tsx';
import { clock, dateTime, duration, plural, unixMillis } from '../format.ts';
import { Icon } from '../icon.tsx';
import { adjust } from '../route.ts';
import { useTheme } from '../theme.ts';
import { selfTime } from './tree.ts';
import { useView } from './use_view.ts';
import { Values } from './values.tsx';
import type { View } from './view.ts';
import { zoomToSpan } from './waterfall.tsx';

/** Walking through rows with a key held down asks for nothing until it rests. */
const REST_MS = 120;
const NS_PER_MS = 1e6;

export function SpanPanel({ view, panel }: { view: View; panel: RefObject<HTMLElement | null> }) {
  const i = useView(view, (v) => v.selected);
  const theme = useTheme();
  const outline = i >= 0 ? view.tree.spans[i]! : null;
  const { full, error } = useFull(view, outline);
  if (i < 0 || !outline) return null;
  const { tree, story } = view;
  const span = full ?? outline;
  const startMillis = unixMillis(story.trace!.start_unix_nano) + outline.offset_ns / NS_PER_MS;
  const parent = tree.parent[i]!;
  const logs = story.logs.filter((l) => l.span_id === span.span_id).length;
  const failures = story.errors.filter((f) => f.span_id === span.span_id);
  const passedOn = story.errors.flatMap((f) => (f.seen_in ?? []).filter((s) => s.span_id === span.span_id && f.span_id !== span.span_id).map((seen) => ({ seen, cause: f })));
  const resource = resourceOf(span, view);
  const find = (key: string, value: Json) =>
    typeof value === 'object' || String(value).length > 120 ? null : `/?${new URLSearchParams({ service: span.service, tag: `${key}=${/\s/.test(String(value)) ? `"${value}"` : value}` })}`;

  return (
    <aside class="span-panel" ref={panel} tabIndex={-1} aria-label={`Span ${span.operation}`}>
      <header>
        <div>
          <p class="chip"><i class="dot" style={{ background: serviceColour(span.service, theme) }} />{span.service}{span.kind !== 'unspecified' && <span class="quiet">· {span.kind}</span>}</p>
          <h2>{span.operation}</h2>
        </div>
        <button class="tool" type="button" onClick={() => view.select(-1)} aria-label="Close the span" title="Close (Esc)"><Icon name="close" /></button>
      </header>
      <dl class="facts">
        <div><dt>Duration</dt><dd>{duration(span.duration_ns)}</dd></div>
        <div><dt>Of its own</dt><dd>{duration(selfTime(tree, i))}</dd></div>
        <div><dt>Starts at</dt><dd title={dateTime(startMillis)}>{duration(outline.offset_ns)} <span class="quiet">{clock(startMillis)}</span></dd></div>
        <div><dt>Status</dt><dd>{span.status === 'error' ? <span class="errors"><Icon name="error" />error</span> : span.status}</dd></div>
      </dl>
      {span.status === 'error' && span.status_message && ![...failures, ...passedOn.map((p) => p.seen)].some((f) => f.message === span.status_message) && <p class="failure">{span.status_message}</p>}
      {failures.map((f, k) => (
        <div key={k} class="failure">
          <strong>{f.type || 'Error'}</strong> {f.message}
          {f.stack && <details><summary>Stack</summary><pre>{f.stack}</pre></details>}
        </div>
      ))}
      {passedOn.map(({ seen, cause }, k) => {
        const at = cause.span_id === null ? -1 : (tree.byId.get(cause.span_id) ?? -1);
        return (
          <div key={k} class="failure">
            {seen.message ? <><strong>{seen.type || 'Error'}</strong> {seen.message} </> : <strong>Failed </strong>}
            <span class="quiet">because of</span> {at >= 0 ? <button class="link-button" type="button" onClick={() => view.select(at)}>{tree.spans[at]!.operation}</button> : cause.service}
            {seen.stack && <details><summary>Stack</summary><pre>{seen.stack}</pre></details>}
          </div>
        );
      })}
      {span.skew_ns !== 0 && <p class="warned-box"><Icon name="skew" /> This host's clock disagrees with its caller's: the span is drawn {duration(Math.abs(span.skew_ns))} {span.skew_ns > 0 ? 'later' : 'earlier'} than it said.</p>}
      {span.orphan && <p class="warned-box">It names the parent <code>{span.parent_span_id}</code>, which is not here: lost, not sampled, or still to come.</p>}
      <p class="span-acts">
        <button class="quiet-button" type="button" onClick={() => zoomToSpan(view, i)}>Zoom to it</button>
        {parent >= 0 && <button class="quiet-button" type="button" onClick={() => view.select(parent)}>Parent</button>}
        <button class="quiet-button" type="button" disabled={!logs} onClick={() => adjust({ tab: null, of: 'span', q: null, level: null })}>{logs ? `Its ${plural(logs, 'log line')}` : 'No log lines'}</button>
      </p>
      <h3>Attributes</h3>
      {span.attributes ? <Values values={span.attributes} find={find} /> : error ? <p class="failure">{error.message} {error.hint}</p> : <p class="quiet">Loading …</p>}
      {span.events && span.events.length > 0 && (
        <>
          <h3>Events</h3>
          {span.events.map((e, k) => (
            <details key={k} class="event">
              <summary><span class="mono">{duration(e.offset_ns)}</span> <strong>{e.name}</strong> <span class="quiet">{preview(e.attributes)}</span></summary>
              <Values values={e.attributes} />
            </details>
          ))}
        </>
      )}
      {span.links && span.links.length > 0 && (
        <>
          <h3>Links</h3>
          {span.links.map((l, k) => (
            <div key={k} class="event">
              <a href={`/trace/${l.trace_id}?span=${l.span_id}`} class="mono">{l.trace_id === story.tracking_id ? 'this trace' : l.trace_id} · {l.span_id}</a>
              {Object.keys(l.attributes).length > 0 && <Values values={l.attributes} />}
            </div>
          ))}
        </>
      )}
      {resource && (<><h3>Resource</h3><Values values={resource} find={find} /></>)}
      <h3>Identity</h3>
      <Values values={identity(span)} />
      <p class="span-foot"><Copy text={JSON.stringify(full ?? span, null, 2)} what="the span as JSON">Copy as JSON</Copy></p>
    </aside>
  );
}

function identity(span: Span): Attributes {
  const said: Attributes = { 'span id': span.span_id };
  if (span.parent_span_id) said['parent span id'] = span.parent_span_id;
  if (span.scope) said['scope'] = span.scope;
  if (span.instance) said['instance'] = span.instance;
  return said;
}

function preview(attributes: Attributes): string {
  return Object.entries(attributes).slice(0, 3).map(([k, v]) => `${k}=${typeof v === 'object' ? '…' : String(v).slice(0, 60)}`).join(' ');
}

function resourceOf(span: Span, view: View): Attributes | null {
  if (typeof span.resource === 'object') return span.resource;
  return span.resource === undefined ? null : (view.story.trace?.resources?.[span.resource] ?? null);
}

function useFull(view: View, span: Span | null): { full: Span | null; error: ApiError | null } {
  const [state, set] = useState<{ of: Span | null; full: Span | null; error: ApiError | null }>({ of: null, full: null, error: null });
  useEffect(() => {
    if (!span || span.attributes) return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      spanInFull(view.story.tracking_id, span.span_id, stop.signal).then(
        (full) => set({ of: span, full, error: null }),
        (e) => { if (!stop.signal.aborted) set({ of: span, full: null, error: e instanceof ApiError ? e : new ApiError(0, String(e), '') }); },
      );
    }, REST_MS);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [view, span]);
  return state.of === span ? state : { full: null, error: null };
}
