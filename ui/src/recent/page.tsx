/** The first page: recent traces, kept fresh while somebody looks. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ApiError, search, type Summary } from '../api.ts';
import { register, serviceColour } from '../colour.ts';
import { Copy } from '../copy.tsx';
import { ago, count, dateTime, duration, plural, unixMillis } from '../format.ts';
import { Icon } from '../icon.tsx';
import { isTyping } from '../keys.ts';
import { adjust, usePlace } from '../route.ts';
import { useTheme } from '../theme.ts';
import { Filters } from './filters.tsx';
import { apiQuery, isFiltered } from './query.ts';

/** A look every 5 s is fresh to a person and one small request to the server; failures back off to a minute. */
const REFRESH_MS = 5_000;
const BACKOFF_MAX_MS = 60_000;

export function RecentPage() {
  const { query } = usePlace();
  const live = query.get('live') !== 'off';
  const asked = apiQuery(query).toString();
  const { traces, error, at } = useRecent(asked, live);
  useEffect(() => { document.title = 'Recent traces · Trackline'; }, []);

  return (
    <div class="recent-page">
      <div class="recent-head">
        <h1>Recent traces</h1>
        <p class="quiet" role="status">
          {traces && !error ? `${plural(traces.length, 'trace')}${live ? '' : ', paused'}` : ''}
        </p>
        <button class="quiet-button" type="button" aria-pressed={live} onClick={() => adjust({ live: live ? 'off' : null })} title={live ? 'Refreshing every 5 seconds while you look' : 'Not refreshing'}>
          <Icon name={live ? 'live' : 'pause'} />{live ? 'Live' : 'Paused'}
        </button>
      </div>
      <Filters query={query} />
      {error && <Trouble error={error} stale={!!traces?.length} />}
      {traces && traces.length > 0 && <Table traces={traces} now={at} key={asked} />}
      {traces && traces.length === 0 && !error && (isFiltered(query) ? <NoMatch /> : <FirstSteps />)}
      {!traces && !error && <p class="quiet pad">Loading …</p>}
    </div>
  );
}

type Recent = { traces: Summary[] | null; error: ApiError | null; at: number };

/** One request at a time; none while the page is hidden; at once when it is looked at again. */
function useRecent(asked: string, live: boolean): Recent {
  const [state, set] = useState<Recent>({ traces: null, error: null, at: Date.now() });
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    let wait = REFRESH_MS;
    let busy = false;
    const look = async () => {
      clearTimeout(timer);
      if (busy) return;
      busy = true;
      try {
        const traces = await search(new URLSearchParams(asked), stop.signal);
        wait = REFRESH_MS;
        register(traces.flatMap((t) => serviceNames(t)));
        set({ traces, error: null, at: Date.now() });
      } catch (e) {
        if (stop.signal.aborted) return;
        wait = Math.min(wait * 2, BACKOFF_MAX_MS);
        const error = e instanceof ApiError ? e : new ApiError(0, String(e), '');
        set((last) => ({ traces: last.traces, error, at: Date.now() }));
      } finally {
        busy = false;
      }
      if (live && !stop.signal.aborted && !document.hidden) timer = window.setTimeout(look, wait);
    };
    const onVisible = () => {
      if (document.hidden) clearTimeout(timer);
      else if (live) void look();
    };
    document.addEventListener('visibilitychange', onVisible);
    void look();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, [asked, live]);
  return state;
}

function serviceNames(t: Summary): string[] {
  return t.services.map((s) => (typeof s === 'string' ? s : s.name));
}

function Table({ traces, now }: { traces: Summary[]; now: number }) {
  const theme = useTheme();
  const body = useRef<HTMLTableSectionElement>(null);
  const longest = Math.max(1, ...traces.map((t) => t.duration_ns));

  useLayoutEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || isTyping(e.target)) return;
      const step = e.key === 'j' || e.key === 'ArrowDown' ? 1 : e.key === 'k' || e.key === 'ArrowUp' ? -1 : 0;
      if (!step || document.querySelector('dialog[open]')) return;
      const links = [...(body.current?.querySelectorAll<HTMLAnchorElement>('a.trace-link') ?? [])];
      const at = links.indexOf(document.activeElement as HTMLAnchorElement);
      links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step))]?.focus();
      e.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);

  return (
    <div class="table-scroll" role="region" aria-label="Recent traces" tabIndex={-1}>
      <table class="recent">
        <thead>
          <tr><th scope="col">When</th><th scope="col">Service and operation</th><th scope="col" class="num">Duration</th><th scope="col" class="num">Spans</th><th scope="col" class="num">Errors</th><th scope="col">Services</th></tr>
        </thead>
        <tbody ref={body}>
          {traces.map((t) => {
            const millis = unixMillis(t.start_unix_nano);
            const root = t.root ?? { service: 'root not seen', operation: '–' };
            return (
              <tr key={t.tracking_id} class={t.error_count ? 'failed' : ''}>
                <td class="when"><time dateTime={new Date(millis).toISOString()} title={dateTime(millis)}>{ago(millis, now)}</time></td>
                <td class="what">
                  <a class="trace-link" href={`/trace/${t.tracking_id}`} title={t.tracking_id}>
                    <i class="dot" style={{ background: t.root ? serviceColour(root.service, theme) : undefined }} />
                    <span class="service">{root.service}</span> <span class="operation">{root.operation}</span>
                  </a>
                  {t.status_code ? <span class={`code ${t.status_code >= 500 ? 'code-bad' : t.status_code >= 400 ? 'code-warn' : ''}`}>{t.status_code}</span> : null}
                </td>
                <td class="num dur">
                  <i class="dur-bar" style={{ width: `${Math.max(0.5, (t.duration_ns / longest) * 100)}%` }} />
                  <span>{duration(t.duration_ns)}</span>
                </td>
                <td class="num">{count(t.span_count)}</td>
                <td class="num">{t.error_count ? <span class="errors"><Icon name="error" />{count(t.error_count)}</span> : <span class="none">0</span>}</td>
                <td class="services">
                  {serviceNames(t).map((s) => <span key={s} class="chip"><i class="dot" style={{ background: serviceColour(s, theme) }} />{s}</span>)}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Trouble({ error, stale }: { error: ApiError; stale: boolean }) {
  return (
    <div class="trouble" role="alert">
      <Icon name="error" />
      <div><strong>{error.message}</strong> {error.hint}{stale && ' What you see below is from before.'}</div>
    </div>
  );
}

function NoMatch() {
  return (
    <section class="notice">
      <h2>No trace matches</h2>
      <p>Look further back with <em>Last</em>, or take a filter away. Tags match attributes of spans and resources exactly: <code>http.response.status_code=500</code>; a key alone asks whether it is there.</p>
    </section>
  );
}

function FirstSteps() {
  const door = `http://${location.hostname}`;
  const byHand = useMemo(() => curl(door), [door]);
  return (
    <section class="notice">
      <h2>No traces in this time yet</h2>
      <p>Trackline is running and waits for spans. Three ways to see some:</p>
      <ol>
        <li><strong>Watch the demo.</strong> Four services with steady traffic, some of it failing:<Command text="cargo run --release -- demo" /></li>
        <li><strong>Point a service here.</strong> Any OpenTelemetry SDK sends to it:<Command text={`OTEL_EXPORTER_OTLP_ENDPOINT=${door}:4317   # gRPC; HTTP is on 4318`} /></li>
        <li><strong>Send one by hand.</strong><Command text={byHand} /></li>
      </ol>
      <p class="quiet">Older traces may exist: choose a longer time under <em>Last</em>. Have a tracking ID already? Press <kbd>/</kbd> and paste it.</p>
    </section>
  );
}

function Command({ text }: { text: string }) {
  return <div class="command"><pre tabIndex={0} aria-label="Command"><code>{text}</code></pre><Copy text={text} what="the command" /></div>;
}

function curl(door: string): string {
  const now = Date.now();
  return `curl ${door}:4318/v1/traces -H 'content-type: application/json' -d '{"resourceSpans":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"hello"}}]},
  "scopeSpans":[{"spans":[{"traceId":"${randomHex(16)}","spanId":"${randomHex(8)}","name":"first light",
    "startTimeUnixNano":"${now - 120}000000","endTimeUnixNano":"${now}000000"}]}]}]}'`;
}

function randomHex(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, '0')).join('');
}
