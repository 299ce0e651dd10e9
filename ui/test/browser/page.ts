/** A headless Chromium that talks to nobody but the server under test, and what tests ask of a page again and again. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export type Opened = { page: Page; context: BrowserContext; problems: string[]; close: () => Promise<void> };

/** A fresh profile each time. `problems` collects what a person would find in the console, and every request that left the server. */
export async function openBrowser(executablePath: string, options: { dark?: boolean; width?: number; height?: number } = {}): Promise<Opened> {
  const profile = mkdtempSync(join(tmpdir(), 'trackline-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath, args: FLAGS, headless: true, viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
    colorScheme: options.dark ? 'dark' : 'light', reducedMotion: 'reduce',
  });
  const problems: string[] = [];
  const page = context.pages()[0] ?? (await context.newPage());
  page.on('pageerror', (e) => problems.push(`uncaught: ${e.stack ?? e}`));
  page.on('console', (m) => { if (m.type() === 'error') problems.push(`console: ${m.text()}`); });
  page.on('request', (r) => { if (new URL(r.url()).hostname !== '127.0.0.1') problems.push(`left the machine: ${r.url()}`); });
  return { page, context, problems, close: async () => { await context.close(); rmSync(profile, { recursive: true, force: true }); } };
}

/** Two frames: what was asked for before is drawn by now. */
export function drawn(page: Page): Promise<void> {
  return page.evaluate(() => new Promise<void>((done) => requestAnimationFrame(() => requestAnimationFrame(() => done()))));
}

/** A picture of the waterfall as numbers: a hash, and how many pixels have each of `colours` (css, as computed). */
export async function canvasPixels(page: Page, colours: string[] = []): Promise<{ hash: number; counts: number[]; corner: string }> {
  await drawn(page);
  return page.evaluate((wanted) => {
    const c = document.querySelector<HTMLCanvasElement>('.waterfall-canvas')!;
    const { data } = c.getContext('2d')!.getImageData(0, 0, c.width, c.height);
    const counts = wanted.map(() => 0);
    const keys = wanted.map((css) => { const [r, g, b] = css.match(/\d+/g)!.map(Number) as [number, number, number]; return (r << 16) | (g << 8) | b; });
    let hash = 0;
    for (let i = 0; i < data.length; i += 4) {
      const key = (data[i]! << 16) | (data[i + 1]! << 8) | data[i + 2]!;
      hash = (Math.imul(hash, 31) + key) | 0;
      const k = keys.indexOf(key);
      if (k >= 0) counts[k]!++;
    }
    const last = data.length - 4;
    return { hash, counts, corner: `rgb(${data[last]}, ${data[last + 1]}, ${data[last + 2]})` };
  }, colours);
}

/** What the selected row says to a screen reader; null when nothing is selected. */
export function selectedRow(page: Page): Promise<string | null> {
  return page.evaluate(() => {
    const id = document.querySelector('[role=tree]')?.getAttribute('aria-activedescendant');
    return id ? (document.getElementById(id)?.textContent ?? null) : null;
  });
}

/** Text that is hard to read: less than 4.5:1 (3:1 when large) against the nearest opaque ground (WCAG 1.4.3). */
export function poorContrast(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const parse = (css: string) => (css.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (rgb: number[]) => {
      const [r, g, b] = rgb.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)) as [number, number, number];
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (e: Element | null): number[] => {
      for (; e; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length === 3 || c[3] === 1) return c;
      }
      return [255, 255, 255];
    };
    const poor = new Set<string>();
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let n = walk.nextNode(); n; n = walk.nextNode()) {
      const e = n.parentElement!;
      if (!n.textContent!.trim() || e.closest('.unseen,noscript,script,option,[disabled],:disabled') || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const style = getComputedStyle(e);
      const [hi, lo] = [luminance(parse(style.color)), luminance(ground(e))].sort((a, b) => b - a) as [number, number];
      const ratio = (hi + 0.05) / (lo + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) poor.add(`${ratio.toFixed(2)} ${e.tagName.toLowerCase()}.${e.className}: ${n.textContent!.trim().slice(0, 40)}`);
    }
    return [...poor];
  });
}

/** Things that one can use but not name: WCAG 4.1.2 in its cheapest form. */
export function nameless(page: Page): Promise<string[]> {
  return page.evaluate(() => [...document.querySelectorAll<HTMLElement>('button,a[href],input,select,[role=separator],[role=tab],[role=tree],[role=listbox],[tabindex="0"]')]
    .filter((e) => e.checkVisibility())
    .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent!.trim() || (e as HTMLInputElement).labels?.length))
    .map((e) => e.outerHTML.slice(0, 120)));
}
