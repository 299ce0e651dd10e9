/** Draws a component again when the view changes in a way that it shows. */
import { useEffect, useState } from 'preact/hooks';
import type { View } from './view.ts';

export function useView<T>(view: View, read: (v: View) => T): T {
  const [value, set] = useState(() => read(view));
  useEffect(() => {
    set(() => read(view));
    return view.subscribe(() => set(() => read(view)));
  }, [view]);
  return value;
}
