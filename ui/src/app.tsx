/** The frame around every view: brand, search box, theme, help; and the keys that work everywhere. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Help } from './help.tsx';
import { RecentPage } from './recent/page.tsx';
import { Icon } from './icon.tsx';
import { isTyping } from './keys.ts';
import { here, usePlace } from './route.ts';
import { SearchBox } from './search_box.tsx';
import { choice, choose, type Choice } from './theme.ts';
import { TracePage } from './trace/page.tsx';

const TRACE_PATH = /^\/trace\/([^/]+)\/?$/;

export function App() {
  const { path } = usePlace();
  const [help, setHelp] = useState(false);
  const search = useRef<HTMLInputElement>(null);

  // Before the first paint: what can be seen can be used.
  useLayoutEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || isTyping(e.target)) return;
      if (e.key === '/') {
        search.current?.focus();
        search.current?.select();
      } else if (e.key === '?') setHelp(true);
      else return;
      e.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);

  const trace = TRACE_PATH.exec(path);
  const home = path === '/' || path === '/search';
  return (
    <>
      <a class="skip" href="#main">Skip to content</a>
      <header class="bar">
        <a class="brand" href="/" aria-label="Trackline, recent traces"><Icon name="brand" /><span>Trackline</span></a>
        <SearchBox field={search} />
        <div class="bar-tools">
          <ThemeButton />
          <button class="tool" type="button" onClick={() => setHelp(true)} aria-label="Keys and help" title="Keys and help (?)"><Icon name="help" /></button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {trace ? <TracePage key={trace[1]} asked={decode(trace[1]!)} /> : home ? <RecentPage /> : <Lost />}
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </>
  );
}

function decode(part: string): string {
  try { return decodeURIComponent(part); } catch { return part; }
}

function Lost() {
  return (
    <section class="notice">
      <h1>Nothing lives here</h1>
      <p><code>{here().path}</code> is no page of Trackline. Traces are at <code>/trace/ID</code>; <a href="/">recent traces</a> are on the first page.</p>
    </section>
  );
}

const NEXT: Record<Choice, Choice> = { auto: 'light', light: 'dark', dark: 'auto' };
const SAID: Record<Choice, string> = { auto: 'as the system', light: 'light', dark: 'dark' };

function ThemeButton() {
  const [now, set] = useState(choice);
  const turn = () => {
    choose(NEXT[now]);
    set(NEXT[now]);
  };
  return (
    <button class="tool" type="button" onClick={turn} aria-label={`Colours: ${SAID[now]}. Change to ${SAID[NEXT[now]]}`} title={`Colours: ${SAID[now]}`}>
      <Icon name={now === 'auto' ? 'auto' : now === 'light' ? 'sun' : 'moon'} />
    </button>
  );
}
