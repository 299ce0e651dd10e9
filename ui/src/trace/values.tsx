/** Attributes as a table: key, value, and a way to copy it. */
import type { Attributes, Json } from '../api.ts';
import { Copy } from '../copy.tsx';

/** Longer values are folded until somebody wants them. */
const FOLD_CHARS = 400;

export function Values({ values, find }: { values: Attributes; find?: (key: string, value: Json) => string | null }) {
  const keys = Object.keys(values);
  if (!keys.length) return <p class="quiet">none</p>;
  return (
    <table class="values">
      <tbody>
        {keys.map((key) => {
          const text = asText(values[key]!);
          const link = find?.(key, values[key]!);
          return (
            <tr key={key}>
              <th scope="row">{key}</th>
              <td>
                <Value text={text} kind={typeof values[key]} />
                <span class="value-tools">
                  {link && <a href={link} title={`Traces with this ${key}`} aria-label={`Traces with this ${key}`}>find</a>}
                  <Copy text={text} what={key} />
                </span>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function Value({ text, kind }: { text: string; kind: string }) {
  if (text.length > FOLD_CHARS) {
    return <details class="value-long"><summary><code>{text.slice(0, 160)}…</code></summary><pre>{text}</pre></details>;
  }
  if (text.includes('\n')) return <pre>{text}</pre>;
  return <code class={`is-${kind}`}>{text === '' ? '""' : text}</code>;
}

export function asText(v: Json): string {
  return typeof v === 'string' ? v : typeof v === 'object' && v !== null ? JSON.stringify(v, null, 2) : String(v);
}
