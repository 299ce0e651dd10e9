/** A button that copies a text, and says that it did. */
import { useState } from 'preact/hooks';
import { Icon } from './icon.tsx';

const SAID_MS = 1_400;

export function Copy({ text, what, children }: { text: string; what: string; children?: preact.ComponentChildren }) {
  const [done, set] = useState(false);
  const copy = async () => {
    if (await toClipboard(text)) {
      set(true);
      setTimeout(() => set(false), SAID_MS);
    }
  };
  return (
    <button class={children ? 'copy copy-text' : 'copy'} type="button" onClick={copy} aria-label={`Copy ${what}`} title={`Copy ${what}`}>
      {children}
      <Icon name={done ? 'check' : 'copy'} />
      <span class="unseen" aria-live="polite">{done ? 'Copied' : ''}</span>
    </button>
  );
}

/** Away from loopback without TLS a page has no clipboard API; an old command still works there. */
async function toClipboard(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.style.position = 'fixed';
    area.style.opacity = '0';
    document.body.append(area);
    area.select();
    const ok = document.execCommand('copy');
    area.remove();
    return ok;
  }
}
