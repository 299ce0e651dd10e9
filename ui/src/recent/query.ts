/** What a link to the recent traces asks of the server. */

export const DEFAULT_LOOKBACK = '1h';
export const DEFAULT_LIMIT = 50;

/** Names of an address' filters are those of the API, so that a link reads like the request it makes. */
export function apiQuery(query: URLSearchParams): URLSearchParams {
  const asked = new URLSearchParams();
  for (const key of ['service', 'operation', 'min_duration', 'max_duration', 'start', 'end']) {
    const value = query.get(key);
    if (value) asked.set(key, value);
  }
  for (const tag of tags(query)) asked.append('tag', tag);
  if (query.get('errors') === 'true') asked.set('errors', 'true');
  if (!asked.has('start')) asked.set('lookback', query.get('lookback') || DEFAULT_LOOKBACK);
  asked.set('limit', query.get('limit') || String(DEFAULT_LIMIT));
  return asked;
}

/** `tag` holds `key=value` pairs, or keys alone, parted by spaces; quotes keep a space inside a value. */
export function tags(query: URLSearchParams): string[] {
  return [...(query.get('tag') ?? '').matchAll(/[^\s=]*(?:=(?:"[^"]*"|\S*)|(?=\s|$))/g)].map((m) => m[0].replace(/="(.*)"$/, '=$1')).filter((t) => t !== '');
}

export function isFiltered(query: URLSearchParams): boolean {
  return ['service', 'operation', 'tag', 'min_duration', 'max_duration', 'errors', 'start', 'end'].some((k) => query.get(k));
}
