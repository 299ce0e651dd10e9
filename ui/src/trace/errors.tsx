/** What went wrong, each thing once, in time order, with its stack and with what its callers made of it. */
import { useMemo } from 'preact/hooks';
import type { Failure, SeenIn } from '../api.ts';
import { serviceColour } from '../colour.ts';
import { Copy } from '../copy.tsx';
import { count, duration } from '../format.ts';
import { Icon } from '../icon.tsx';
import { useTheme } from '../theme.ts';
import { useView } from './use_view.ts';
import type { View } from './view.ts';

/** So many stacks are open from the start. */
const OPEN_STACKS = 2;
/** A trace with thousands of failures shows these; the waterfall marks all of them. */
const MAX_SHOWN = 300;

/** A failure that repeats (each attempt, each item) is one entry with many places. */
type Group = { failure: Failure; at: number; places: number[]; times: number; layers: SeenIn[]; layersCut: number };

/** So many layers of one failure are listed, however often it repeats. */
const MAX_LAYERS = 32;

/** So many places of one failure get a link of their own. */
const MAX_PLACES = 8;

function grouped(view: View): Group[] {
  const groups = new Map<string, Group>();
  view.story.errors.forEach((failure, k) => {
    const key = [failure.service, failure.type, failure.message, failure.stack].join('\0');
    let g = groups.get(key);
    if (!g) groups.set(key, (g = { failure, at: view.said.failedAt[k]!, places: [], times: 0, layers: [], layersCut: 0 }));
    g.times++;
    const room = MAX_LAYERS - g.layers.length;
    const seen = failure.seen_in ?? [];
    g.layers.push(...seen.slice(0, room));
    g.layersCut += Math.max(0, seen.length - room) + (failure.seen_in_cut ?? 0);
    const i = failure.span_id === null ? -1 : (view.tree.byId.get(failure.span_id) ?? -1);
    if (i >= 0) g.places.push(i);
  });
  return [...groups.values()];
}

const SOURCE = { event: 'told by an exception event', status: "told by the span's status", log: 'told by a log line' };

export function Errors({ view }: { view: View }) {
  const theme = useTheme();
  const selected = useView(view, (v) => v.selected);
  const groups = useMemo(() => grouped(view), [view]);
  if (!groups.length) return <p class="quiet pad">Nothing went wrong here.</p>;
  return (
    <ol class="error-list">
      {groups.slice(0, MAX_SHOWN).map(({ failure: f, at, places, times, layers, layersCut }, k) => (
        <li key={k} class={selected >= 0 && places.includes(selected) ? 'mine' : ''}>
          <div class="error-head">
            <Icon name="error" />
            <strong>{f.type || 'Error'}</strong>
            <span class="error-message">{f.message}</span>
            {times > 1 && <span class="error-times">× {count(times)}</span>}
          </div>
          <p class="error-where">
            <span class="chip"><i class="dot" style={{ background: serviceColour(f.service, theme) }} />{f.service}</span>
            <span class="quiet">{times > 1 ? 'first ' : ''}at {duration(at)} · {SOURCE[f.source]}</span>
            {places.slice(0, MAX_PLACES).map((i) => (
              <button key={i} class="link-button" type="button" aria-pressed={i === selected} onClick={() => view.select(i)}>
                {view.tree.spans[i]!.operation}{places.length > 1 && <span class="quiet"> {duration(view.tree.start[i]!)}</span>}
              </button>
            ))}
            {places.length > MAX_PLACES && <span class="quiet">and {count(places.length - MAX_PLACES)} more</span>}
          </p>
          {f.stack && (
            <details class="stack" open={k < OPEN_STACKS}>
              <summary>Stack</summary>
              <div class="stack-body"><pre tabIndex={0} aria-label="Stack">{f.stack}</pre><Copy text={f.stack} what="the stack" /></div>
            </details>
          )}
          {layers.length > 0 && <Layers view={view} layers={layers} cut={layersCut} selected={selected} />}
        </li>
      ))}
      {(view.story.more.errors_cut ?? 0) > 0 && <li class="quiet">The server's bound on one answer left out {count(view.story.more.errors_cut!)} more.</li>}
      {groups.length > MAX_SHOWN && <li class="quiet">{count(groups.length - MAX_SHOWN)} more are marked in the waterfall; <kbd>e</kbd> steps through them.</li>}
    </ol>
  );
}

/** The way of a failure up to the root: one line a layer, with its words where it has any. */
function Layers({ view, layers, cut, selected }: { view: View; layers: SeenIn[]; cut: number; selected: number }) {
  const theme = useTheme();
  return (
    <ol class="layers" aria-label="Seen in its callers">
      {layers.map((l, k) => {
        const i = l.span_id === null ? -1 : (view.tree.byId.get(l.span_id) ?? -1);
        return (
          <li key={k}>
            <span class="chip"><i class="dot" style={{ background: serviceColour(l.service, theme) }} />{l.service}</span>
            {i >= 0 ? <button class="link-button" type="button" aria-pressed={i === selected} onClick={() => view.select(i)}>{l.operation}</button> : <span>{l.operation}</span>}
            {(l.message || l.type) && <span class="error-message">{[l.type, l.message].filter(Boolean).join(': ')}</span>}
            {l.stack && (
              <details class="stack">
                <summary>Stack</summary>
                <div class="stack-body"><pre tabIndex={0} aria-label="Stack">{l.stack}</pre><Copy text={l.stack} what="the stack" /></div>
              </details>
            )}
          </li>
        );
      })}
      {cut > 0 && <li class="quiet">and {count(cut)} more layers</li>}
    </ol>
  );
}
