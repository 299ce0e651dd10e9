import { expect, test } from 'vitest';
import { apiQuery, isFiltered, tags } from '../../src/recent/query.ts';

test('an empty link asks for the last hour', () => {
  expect(apiQuery(new URLSearchParams()).toString()).toBe('lookback=1h&limit=50');
});

test('filters are passed on by their names', () => {
  const q = new URLSearchParams({ service: 'api', tag: 'a=1 b="two words" c=', errors: 'true', live: 'off', lookback: '6h', evil: 'x' });
  expect(apiQuery(q).getAll('tag')).toEqual(['a=1', 'b=two words', 'c=']);
  expect([...apiQuery(q).keys()]).toEqual(['service', 'tag', 'tag', 'tag', 'errors', 'lookback', 'limit']);
  expect(isFiltered(q)).toBe(true);
  expect(isFiltered(new URLSearchParams('live=off&lookback=6h'))).toBe(false);
});

test('a key alone asks whether it is there, and nonsense is left for the server to name', () => {
  expect(tags(new URLSearchParams({ tag: ' user.id  k=v =x' }))).toEqual(['user.id', 'k=v', '=x']);
});
