import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

const DIST = new URL('../../dist', import.meta.url).pathname;
/** The whole page, compressed; it is embedded into the binary and loaded over slow tunnels. */
const MAX_GZIP_BYTES = 150_000;

const files = (readdirSync(DIST, { recursive: true }) as string[]).filter((f) => statSync(join(DIST, f)).isFile());
const text = (f: string) => readFileSync(join(DIST, f), 'utf8');

test('the built page is small and has no source maps', () => {
  expect(files.filter((f) => f.endsWith('.map'))).toEqual([]);
  const bytes = files.reduce((n, f) => n + gzipSync(readFileSync(join(DIST, f))).length, 0);
  expect(bytes).toBeLessThan(MAX_GZIP_BYTES);
});

test('it loads nothing from elsewhere and names no machine', () => {
  // Namespaces are names, not addresses to load from.
  const allowed = /^https?:\/\/(www\.w3\.org\/|127\.0\.0\.1|\$|localhost)/;
  for (const f of files) {
    const urls = [...text(f).matchAll(/https?:\/\/[^\s"'`)<]*/g)].map((m) => m[0]).filter((u) => u !== 'http://' && !allowed.test(u));
    expect([f, urls]).toEqual([f, []]);
    expect(text(f)).not.toMatch(/\/(home|root|usr|tmp|Users)\//);
    expect(text(f)).not.toMatch(/sourceMappingURL|@import|url\(['"]?(https?:)?\/\//);
  }
});

test('every file that the page names is there', () => {
  const html = text('index.html');
  const named = [...html.matchAll(/(?:src|href)="\/([^"]+)"/g)].map((m) => m[1]!);
  expect(named.length).toBeGreaterThan(2);
  for (const f of named) expect(files).toContain(f);
});
