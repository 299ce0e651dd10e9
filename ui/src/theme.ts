/** Light or dark: the system's wish unless the person chose; `data-theme` on the root carries the answer. */
import { useEffect, useState } from 'preact/hooks';
import type { Theme } from './colour.ts';

export type Choice = 'auto' | Theme;
const KEY = 'trackline.theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

export function choice(): Choice {
  // Storage may be forbidden; then the choice lasts as long as the page.
  try {
    const kept = localStorage.getItem(KEY);
    if (kept === 'light' || kept === 'dark') return kept;
  } catch { /* falls through to what the page remembers */ }
  return remembered;
}
let remembered: Choice = 'auto';

export function theme(): Theme {
  const c = choice();
  return c === 'auto' ? (system.matches ? 'dark' : 'light') : c;
}

export function choose(c: Choice): void {
  remembered = c;
  try {
    if (c === 'auto') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, c);
  } catch { /* kept in `remembered` */ }
  apply();
}

export function apply(): void {
  document.documentElement.dataset['theme'] = theme();
  for (const f of listeners) f();
}

system.addEventListener('change', apply);

export function useTheme(): Theme {
  const [t, set] = useState(theme);
  useEffect(() => {
    const update = () => set(theme());
    listeners.add(update);
    return () => void listeners.delete(update);
  }, []);
  return t;
}
