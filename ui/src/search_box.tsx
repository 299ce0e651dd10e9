/** The box that takes a tracking ID in whatever form it was copied, and opens its page. */
import type { RefObject } from 'preact';
import { useState } from 'preact/hooks';
import { Icon } from './icon.tsx';
import { parseId } from './ids.ts';
import { go } from './route.ts';

/** Longer than any form of an id, shorter than a pasted file. */
const MAX_CHARS = 20_000;

export function SearchBox({ field }: { field: RefObject<HTMLInputElement | null> }) {
  const [text, setText] = useState('');
  const [complaint, setComplaint] = useState('');
  const parsed = parseId(text);

  const submit = (e: Event) => {
    e.preventDefault();
    const asked = (field.current?.value ?? text).trim();
    if (!asked) return;
    const found = parseId(asked);
    if (!found && /\s/.test(asked)) {
      setComplaint('No tracking ID found in this text. It is 32 hex digits, or the same as a UUID.');
      return;
    }
    // What we cannot read the server may: it answers with what is wrong otherwise.
    go(`/trace/${found ? found.id : encodeURIComponent(asked.slice(0, 200))}`);
    setText('');
    setComplaint('');
    field.current?.blur();
  };
  // A pasted line break would be eaten by the field and glue two words together.
  const paste = (e: ClipboardEvent) => {
    const pasted = e.clipboardData?.getData('text') ?? '';
    if (!pasted.includes('\n')) return;
    e.preventDefault();
    setText(pasted.slice(0, MAX_CHARS).replace(/\s+/g, ' '));
  };

  return (
    <form class="find" role="search" onSubmit={submit}>
      <Icon name="search" />
      <input ref={field} type="text" name="id" value={text} maxLength={MAX_CHARS} spellcheck={false} autocomplete="off" autocapitalize="off"
        placeholder="Tracking ID, UUID, traceparent, X-Tracking-ID: … or a log line" aria-label="Find a tracking ID" aria-describedby="find-said"
        onInput={(e) => { setText(e.currentTarget.value); setComplaint(''); }} onPaste={paste}
        onKeyDown={(e) => { if (e.key === 'Escape') { e.currentTarget.blur(); setComplaint(''); } }} />
      <kbd aria-hidden="true">/</kbd>
      <span id="find-said" class="find-said" aria-live="polite">
        {complaint || (text.trim() && parsed && parsed.form !== 'hex' ? `${parsed.form}: ${parsed.id}` : '')}
      </span>
    </form>
  );
}
