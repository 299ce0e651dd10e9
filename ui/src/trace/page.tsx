/** The tracking page: one id, its whole story. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ApiError, tracking, type Story } from '../api.ts';
import { register } from '../colour.ts';
import { isTyping } from '../keys.ts';
import { adjust, here, replace, usePlace } from '../route.ts';
import { Errors } from './errors.tsx';
import { Header } from './header.tsx';
import { Logs, openLine } from './logs.tsx';
import { SpanPanel } from './span_panel.tsx';
import { AiCalls, Rows } from './tables.tsx';
import { ERROR, hasChildren, nextFlagged } from './tree.ts';
import { useView } from './use_view.ts';
import { View } from './view.ts';
import { Waterfall, zoomToSpan } from './waterfall.tsx';
import { pan, zoom } from './window.ts';

/** A trace may still be arriving: it is looked at again for about two minutes, then left alone. */
const AGAIN_MS = 2_000;
const MAX_LOOKS = 60;
/** A large answer is asked for less often: the server works at most a fifth of the time for one page. */
const REST_FACTOR = 4;
/** Browsers bound how often an address may change; a wheel would exceed it. */
const LINK_MS = 200;

type Fetched = { story: Story | null; error: ApiError | null; waiting: boolean };

export function TracePage({ asked }: { asked: string }) {
  const { story, error, waiting } = useStory(asked);
  const at = useRef(location.pathname).current;
  if (error && !story) {
    return (
      <section class="notice" role="alert">
        <h1>{error.message}</h1>
        {error.hint && <p>{error.hint}</p>}
        <p class="quiet">Asked for <code>{asked}</code>. An id may be 32 hex digits in either case, a UUID, a <code>traceparent</code>, or an <code>X-Tracking-ID: …</code> line. <a href="/">Recent traces</a></p>
      </section>
    );
  }
  if (!story) return <p class="quiet pad" role="status">Loading …</p>;
  return <Loaded at={at} story={story} waiting={waiting} />;
}

function useStory(asked: string): Fetched {
  const [state, set] = useState<Fetched>({ story: null, error: null, waiting: false });
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    let looks = 0;
    let shown = '';
    const look = async () => {
      const began = performance.now();
      let again = false;
      try {
        const story = await tracking(asked, stop.signal);
        again = (story.status === 'partial' || story.status === 'unknown') && ++looks < MAX_LOOKS;
        register(story.trace?.services.map((s) => s.name) ?? []);
        register(story.logs.map((l) => l.service));
        // The same answer again must not disturb what somebody is looking at.
        const print = [story.status, story.explanation, story.trace?.span_count, story.logs.length, story.errors.length, story.rows.length].join();
        if (print !== shown) set({ story, error: null, waiting: again });
        else set((last) => (last.waiting === again && !last.error ? last : { ...last, error: null, waiting: again }));
        shown = print;
      } catch (e) {
        if (stop.signal.aborted) return;
        const error = e instanceof ApiError ? e : new ApiError(0, String(e), '');
        set((last) => ({ ...last, error, waiting: false }));
        again = error.status === 0 || error.status === 503;
      }
      if (again && !stop.signal.aborted) timer = window.setTimeout(whenSeen, Math.max(AGAIN_MS, (performance.now() - began) * REST_FACTOR));
    };
    const whenSeen = () => {
      if (document.hidden) document.addEventListener('visibilitychange', whenSeen, { once: true });
      else void look();
    };
    void look();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', whenSeen);
    };
  }, [asked]);
  return state;
}

const TABS = ['logs', 'errors', 'ai', 'rows'] as const;
type Tab = (typeof TABS)[number];

function Loaded({ at, story, waiting }: { at: string; story: Story; waiting: boolean }) {
  const { query, moves } = usePlace();
  const raw = query.get('clocks') === 'raw';
  // A new answer or another way of reading clocks makes a new view, which takes up where the link says the old one was.
  const last = useRef<View | null>(null);
  const view = useMemo(() => {
    const q = here().query;
    if (last.current) for (const [k, v] of Object.entries(last.current.link())) if (v === null) q.delete(k); else q.set(k, v);
    return new View(story, q);
  }, [story, raw]);
  last.current = view;
  const panel = useRef<HTMLElement>(null);
  const body = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const root = story.trace?.root;
    document.title = `${root ? `${root.service} ${root.operation}` : story.tracking_id} · Trackline`;
    const canonical = `/trace/${story.tracking_id}`;
    // By now the address may be another view's.
    if (location.pathname !== canonical && location.pathname === at) replace(canonical, here().query);
  }, [story]);

  useEffect(() => { if (moves) view.take(here().query); }, [moves]);

  useEffect(() => {
    let timer = 0;
    const path = `/trace/${story.tracking_id}`;
    const write = () => {
      timer = 0;
      // By now the address may be another view's.
      if (location.pathname === path) adjust(view.link());
    };
    const off = view.subscribe(() => { timer ||= window.setTimeout(write, LINK_MS); });
    return () => { off(); if (timer) { clearTimeout(timer); write(); } };
  }, [view]);

  const toWaterfall = () => body.current?.querySelector<HTMLElement>('.waterfall-scroll')?.focus();
  const readSpan = () => panel.current?.focus();
  useLayoutEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || isTyping(e.target) || document.querySelector('dialog[open]')) return;
      if (pressKey(e, view, readSpan, toWaterfall)) e.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, [view]);

  const hasSpans = view.tree.count > 0;
  const isEmpty = !hasSpans && !story.logs.length && !story.errors.length && !story.rows.length && !story.rows_error;
  const [share, setShare] = useState(0.36);
  const isSelected = useView(view, (v) => v.selected >= 0);
  return (
    <div class="trace">
      <Header view={view} waiting={waiting} />
      {isEmpty ? <Nothing story={story} /> : (
        <div class={`trace-body ${isSelected ? 'with-span' : ''} ${hasSpans ? '' : 'no-spans'}`} style={hasSpans ? { '--panels': `${share * 100}%` } : undefined} ref={body}>
          {hasSpans && <Waterfall view={view} onOpen={readSpan} onLine={(k) => openLine(view, k)} />}
          <Panels view={view} share={share} onShare={setShare} />
          {isSelected && <SpanPanel view={view} panel={panel} />}
        </div>
      )}
    </div>
  );
}

function pressKey(e: KeyboardEvent, view: View, readSpan: () => void, toWaterfall: () => void): boolean {
  const { tree } = view;
  const i = view.selected;
  const on = e.target instanceof Element ? e.target : null;
  const widget = on?.closest('[role=tablist],[role=separator],.log-box,summary');
  const arrow = e.key.startsWith('Arrow') || ['Home', 'End', 'PageUp', 'PageDown'].includes(e.key);
  if (arrow && (widget || on?.closest('.span-panel,.panel-body'))) return false;
  switch (e.key) {
    case 'ArrowDown': case 'j': view.step(1); return true;
    case 'ArrowUp': case 'k': view.step(-1); return true;
    case 'PageDown': view.step(20); return true;
    case 'PageUp': view.step(-20); return true;
    case 'Home': view.step(-Infinity); return true;
    case 'End': view.step(Infinity); return true;
    case 'ArrowLeft':
      if (e.shiftKey) view.look(pan(view.window, view.whole, -0.25));
      else if (i >= 0 && hasChildren(tree, i) && !view.folded[i]) view.fold(i, true);
      else if (i >= 0 && tree.parent[i]! >= 0) view.select(tree.parent[i]!);
      return true;
    case 'ArrowRight':
      if (e.shiftKey) view.look(pan(view.window, view.whole, 0.25));
      else if (i >= 0 && view.folded[i]) view.fold(i, false);
      else if (i >= 0 && hasChildren(tree, i)) view.select(i + 1);
      return true;
    case 'e': case 'E': {
      const next = nextFlagged(tree, i < 0 && e.shiftKey ? 0 : i, e.shiftKey ? -1 : 1, ERROR);
      if (next >= 0) view.select(next);
      return true;
    }
    case '+': case '=': view.look(zoom(view.window, view.whole, 0.6, focusTime(view))); return true;
    case '-': case '_': view.look(zoom(view.window, view.whole, 1 / 0.6, focusTime(view))); return true;
    case '0': view.look(view.whole); return true;
    case 'z': if (i >= 0) zoomToSpan(view, i); return true;
    case 'c': view.foldAll(); return true;
    case 's': document.getElementById('span-filter')?.focus(); return true;
    case 'n': view.next(1); return true;
    case 'N': view.next(-1); return true;
    case 'l': adjust({ tab: null }); return true;
    case 'x': adjust({ tab: 'errors' }); return true;
    case 'f':
      adjust({ tab: null });
      requestAnimationFrame(() => document.getElementById('log-filter')?.focus());
      return true;
    case 'Enter':
      if (i < 0 || on?.closest('a,button,summary,[role=separator],[role=tab]')) return false;
      readSpan();
      return true;
    case 'Escape':
      if (on?.closest('.span-panel,.panels')) toWaterfall();
      else if (i >= 0) { view.select(-1); toWaterfall(); }
      else if (view.window !== view.whole) view.look(view.whole);
      return true;
  }
  return false;
}

/** Zooming by key keeps the selected span's start in place, or else the middle. */
function focusTime(view: View): number {
  const { from, to } = view.window;
  const at = view.selected >= 0 ? view.tree.start[view.selected]! : NaN;
  return at >= from && at <= to ? at : (from + to) / 2;
}

function Panels({ view, share, onShare }: { view: View; share: number; onShare: (share: number) => void }) {
  const { query } = usePlace();
  const { story } = view;
  const asked = query.get('tab') as Tab | null;
  const tab: Tab = asked && TABS.includes(asked) ? asked : 'logs';
  const names: Record<Tab, [string, number]> = {
    logs: ['Logs', story.logs.length],
    errors: ['Errors', story.errors.length],
    ai: ['AI', story.ai?.calls.length ?? 0],
    rows: ['Rows', story.rows.reduce((n, t) => n + t.rows.length, 0)],
  };
  const pick = (t: Tab) => adjust({ tab: t === 'logs' ? null : t });
  const onKey = (e: KeyboardEvent) => {
    const by = e.key === 'ArrowRight' ? 1 : e.key === 'ArrowLeft' ? -1 : 0;
    if (!by) return;
    e.preventDefault();
    const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length]!;
    pick(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  const size = (y: number) => onShare(Math.min(0.8, Math.max(0.12, y)));
  const dragging = useRef(false);
  return (
    <section class="panels" aria-label="Logs, errors, AI calls, rows">
      <div class="panels-grip" role="separator" aria-orientation="horizontal" aria-label="Height of the panels" tabIndex={0} aria-valuenow={Math.round(share * 100)} aria-valuemin={12} aria-valuemax={80}
        onPointerDown={(e) => { dragging.current = true; e.currentTarget.setPointerCapture(e.pointerId); e.preventDefault(); }}
        onPointerMove={(e) => {
          const box = e.currentTarget.closest('.trace-body')?.getBoundingClientRect();
          if (dragging.current && box) size((box.bottom - e.clientY) / box.height);
        }}
        onPointerUp={() => { dragging.current = false; }}
        onKeyDown={(e) => {
          const by = e.key === 'ArrowUp' ? 0.04 : e.key === 'ArrowDown' ? -0.04 : 0;
          if (!by) return;
          e.preventDefault();
          size(share + by);
        }} />
      <div class="tabs" role="tablist" aria-label="Panels" onKeyDown={onKey}>
        {TABS.map((t) => (
          <button key={t} id={`tab-${t}`} class="tab" type="button" role="tab" aria-selected={t === tab} aria-controls="panel" tabIndex={t === tab ? 0 : -1} onClick={() => pick(t)}>
            {names[t][0]}<span class={`tab-count ${t === 'errors' && names[t][1] ? 'bad' : ''}`}>{names[t][1]}</span>
          </button>
        ))}
      </div>
      <div id="panel" class="panel-body" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {tab === 'logs' ? <Logs view={view} /> : tab === 'errors' ? <Errors view={view} /> : tab === 'ai' ? <AiCalls view={view} /> : <Rows story={story} />}
      </div>
    </section>
  );
}

function Nothing({ story }: { story: Story }) {
  return (
    <section class="notice">
      <h2>{story.status === 'expired' ? 'It was here once' : 'What to look at'}</h2>
      {story.status === 'expired'
        ? <p>Its time lies before the retention horizon. Keep traces longer with the retention settings of the <code>store</code> exporter.</p>
        : (
          <ul>
            <li>Has the request ended? Spans arrive about a second after they end; this page keeps looking for two minutes.</li>
            <li>Does the service send here? <code>OTEL_EXPORTER_OTLP_ENDPOINT</code> must point at port 4317 (gRPC) or 4318 (HTTP) of this machine.</li>
            <li>Is it the whole id? 32 hex digits; a shorter one is taken as if zeros stood before it.</li>
          </ul>
        )}
      <p><a href="/">Recent traces</a></p>
    </section>
  );
}
