/**
 * The address bar is the state: every view is its URL, so that a link shows the other person what you see.
 * Moves to another view are history entries; adjustments of the present one (a filter, a zoom) replace the entry.
 */
import { useEffect, useState } from 'preact/hooks';

/** `moves` counts moves (links, back, forward), not adjustments: what follows the address must not follow its own writing. */
export type Place = { path: string; query: URLSearchParams; moves: number };

const listeners = new Set<() => void>();
let moves = 0;

export function here(): Place {
  return { path: location.pathname, query: new URLSearchParams(location.search), moves };
}

export function go(url: string): void {
  if (url !== location.pathname + location.search) history.pushState(null, '', url);
  moves++;
  for (const f of listeners) f();
}

export function adjust(change: Record<string, string | null>): void {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(change)) {
    if (value === null || value === '') query.delete(key);
    else query.set(key, value);
  }
  replace(location.pathname, query);
}

export function replace(path: string, query: URLSearchParams): void {
  const url = address(path, query);
  if (url === location.pathname + location.search) return;
  history.replaceState(null, '', url);
  for (const f of listeners) f();
}

/** Commas and colons stay readable in links; both are legal in a query. */
export function address(path: string, query: URLSearchParams): string {
  const q = query.toString().replaceAll('%2C', ',').replaceAll('%3A', ':');
  return q ? `${path}?${q}` : path;
}

/** The present place; the component is drawn again when it changes. */
export function usePlace(): Place {
  const [place, set] = useState(here);
  useEffect(() => {
    const update = () => set(here());
    listeners.add(update);
    return () => void listeners.delete(update);
  }, []);
  return place;
}

addEventListener('popstate', () => {
  moves++;
  for (const f of listeners) f();
});

/** Plain clicks on our own links move without loading the page again; modified clicks stay the browser's. */
export function followLinks(): void {
  document.addEventListener('click', (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = (e.target as Element).closest?.('a[href]') as HTMLAnchorElement | null;
    if (!a || a.origin !== location.origin || a.target || a.pathname.startsWith('/api/') || a.hasAttribute('download')) return;
    if (a.hash && a.pathname === location.pathname) return;
    e.preventDefault();
    go(a.pathname + a.search);
  });
}
