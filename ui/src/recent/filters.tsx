/** What of the recent traces is shown. Every control writes to the address, and reads from it. */
import { useEffect, useState } from 'preact/hooks';
import { operations, services } from '../api.ts';
import { adjust } from '../route.ts';
import { DEFAULT_LIMIT, DEFAULT_LOOKBACK, isFiltered } from './query.ts';

const LOOKBACKS: [string, string][] = [
  ['5m', '5 minutes'], ['15m', '15 minutes'], ['1h', 'hour'], ['6h', '6 hours'], ['24h', 'day'], ['168h', '7 days'], ['720h', '30 days'],
];
const LIMITS = [20, 50, 100, 200];

export function Filters({ query }: { query: URLSearchParams }) {
  const service = query.get('service') ?? '';
  const allServices = useNames(services, 'all');
  const allOperations = useNames((signal) => (service ? operations(service, signal) : Promise.resolve([])), service);
  const operation = query.get('operation') ?? '';

  return (
    <form class="filters" aria-label="Filters" onSubmit={(e) => e.preventDefault()}>
      <label>
        <span>Service</span>
        <select value={service} onChange={(e) => adjust({ service: e.currentTarget.value, operation: null })}>
          <option value="">any</option>
          {withPresent(allServices, service).map((s) => <option key={s} value={s}>{s}</option>)}
        </select>
      </label>
      <label>
        <span>Operation</span>
        <select value={operation} disabled={!service && !operation} title={service ? '' : 'Choose a service first'}
          onChange={(e) => adjust({ operation: e.currentTarget.value })}>
          <option value="">any</option>
          {withPresent(allOperations, operation).map((o) => <option key={o} value={o}>{o}</option>)}
        </select>
      </label>
      <TextFilter label="Tags" name="tag" query={query} placeholder="key=value http.route=/chat" wide />
      <TextFilter label="Longer than" name="min_duration" query={query} placeholder="100ms" />
      <label>
        <span>Last</span>
        <select value={query.get('lookback') || DEFAULT_LOOKBACK} onChange={(e) => adjust({ lookback: e.currentTarget.value === DEFAULT_LOOKBACK ? null : e.currentTarget.value })}>
          {LOOKBACKS.map(([value, name]) => <option key={value} value={value}>{name}</option>)}
        </select>
      </label>
      <label>
        <span>Up to</span>
        <select value={query.get('limit') || String(DEFAULT_LIMIT)} onChange={(e) => adjust({ limit: e.currentTarget.value === String(DEFAULT_LIMIT) ? null : e.currentTarget.value })}>
          {LIMITS.map((n) => <option key={n} value={String(n)}>{n}</option>)}
        </select>
      </label>
      <label class="tick">
        <input type="checkbox" checked={query.get('errors') === 'true'} onChange={(e) => adjust({ errors: e.currentTarget.checked ? 'true' : null })} />
        <span>Errors only</span>
      </label>
      {isFiltered(query) && (
        <button class="quiet-button" type="button" onClick={() => adjust({ service: null, operation: null, tag: null, min_duration: null, max_duration: null, errors: null, start: null, end: null })}>Clear filters</button>
      )}
    </form>
  );
}

/** Applied on Enter or when the field is left, so that half a word is never searched. */
function TextFilter({ label, name, query, placeholder, wide }: { label: string; name: string; query: URLSearchParams; placeholder: string; wide?: boolean }) {
  const applied = query.get(name) ?? '';
  const apply = (e: Event) => adjust({ [name]: (e.currentTarget as HTMLInputElement).value.trim() });
  return (
    <label class={wide ? 'wide' : ''}>
      <span>{label}</span>
      <input key={applied} type="text" name={name} defaultValue={applied} placeholder={placeholder} spellcheck={false} autocomplete="off" onBlur={apply}
        onKeyDown={(e) => { if (e.key === 'Enter') apply(e); }} />
    </label>
  );
}

/** A list of names from the server; on failure empty, because the table says what is wrong. */
function useNames(fetch: (signal: AbortSignal) => Promise<string[]>, key: string): string[] {
  const [list, set] = useState<string[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    set([]);
    fetch(stop.signal).then((names) => { if (!stop.signal.aborted) set(names); }, () => {});
    return () => stop.abort();
  }, [key]);
  return list;
}

/** The chosen value stays choosable although the list is not there yet or no longer has it. */
function withPresent(list: string[], chosen: string): string[] {
  return !chosen || list.includes(chosen) ? list : [chosen, ...list];
}
