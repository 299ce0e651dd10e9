import { defineConfig } from 'vitest/config';

// `npm run dev` serves the sources with reloading and passes API calls to a running `trackline serve`;
// TRACKLINE names another address for it.
const server = process.env['TRACKLINE'] ?? 'http://127.0.0.1:16686';

export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    sourcemap: false,
    // One script and one stylesheet: the page is small, and the binary embeds whole files.
    cssCodeSplit: false,
    modulePreload: false,
    target: 'es2022',
    assetsInlineLimit: 0,
  },
  server: { proxy: { '/api': server } },
  test: { include: ['**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000, expect: { poll: { timeout: 15_000 } } },
});
