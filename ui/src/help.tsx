/** The keys, in a dialog of the platform's own (focus is kept inside and given back by the browser). */
import { useEffect, useRef } from 'preact/hooks';
import { Icon } from './icon.tsx';

const GROUPS: [string, [string[], string][]][] = [
  ['Everywhere', [
    [['/'], 'Find a tracking ID'],
    [['?'], 'This help'],
    [['Esc'], 'Close, step back'],
  ]],
  ['Recent traces', [
    [['j', '↓'], 'Next trace'],
    [['k', '↑'], 'Previous trace'],
    [['Enter'], 'Open it'],
  ]],
  ['Waterfall: spans', [
    [['j', '↓'], 'Next span'],
    [['k', '↑'], 'Previous span'],
    [['←', '→'], 'Fold or go to the parent, unfold or go to the first child'],
    [['e', 'Shift+E'], 'Next, previous error'],
    [['s'], 'Find spans; Enter and Shift+Enter step through them'],
    [['n', 'Shift+N'], 'Next, previous span that was found'],
    [['Home', 'End', 'PgUp', 'PgDn'], 'Move far'],
    [['Enter'], 'Read the selected span'],
    [['c'], 'Fold everything below the roots, or unfold all'],
  ]],
  ['Waterfall: time', [
    [['+', '−'], 'Zoom in, out'],
    [['z'], 'Zoom to the selected span'],
    [['0'], 'The whole trace'],
    [['Shift+←', 'Shift+→'], 'Earlier, later'],
    [['drag'], 'Zoom to what you drag over; Ctrl + wheel zooms where the pointer is'],
  ]],
  ['Panels', [
    [['l'], 'Logs'],
    [['x'], 'Errors'],
    [['f'], 'Filter the logs'],
  ]],
];

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => { dialog.current?.showModal(); }, []);
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help-title" onClose={onClose}
      onClick={(e) => { if (e.target === dialog.current) dialog.current?.close(); }}>
      <header>
        <h2 id="help-title">Keys</h2>
        <button class="tool" type="button" onClick={() => dialog.current?.close()} aria-label="Close"><Icon name="close" /></button>
      </header>
      <div class="help-groups">
        {GROUPS.map(([title, keys]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {keys.map(([names, what]) => (
                <div key={what}><dt>{names.map((k) => <kbd key={k}>{k}</kbd>)}</dt><dd>{what}</dd></div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p class="quiet">In a terminal: <code>trackline trace ID</code>. This page is free software; it contains <a href="/third-party.txt" target="_blank">Preact</a>.</p>
    </dialog>
  );
}
