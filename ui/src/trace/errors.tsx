/** What went wrong, each thing once, in time order, with its stack. */
import { serviceColour } from '../colour.ts';
import { Copy } from '../copy.tsx';
import { duration } from '../format.ts';
import { Icon } from '../icon.tsx';
import { useTheme } from '../theme.ts';
import { useView } from './use_view.ts';
import type { View } from './view.ts';

/** So many stacks are open from the start. */
const OPEN_STACKS = 2;
/** A trace with thousands of failures shows these; the waterfall marks all of them. */
const MAX_SHOWN = 300;

export function Errors({ view }: { view: View }) {
  const theme = useTheme();
  const selected = useView(view, (v) => v.selected);
  const { errors } = view.story;
  if (!errors.length) return <p class="quiet pad">Nothing went wrong here.</p>;
  return (
    <ol class="error-list">
      {errors.slice(0, MAX_SHOWN).map((f, k) => {
        const i = f.span_id === null ? -1 : (view.tree.byId.get(f.span_id) ?? -1);
        return (
          <li key={k} class={i >= 0 && i === selected ? 'mine' : ''}>
            <div class="error-head">
              <Icon name="error" />
              <strong>{f.type || 'Error'}</strong>
              <span class="error-message">{f.message}</span>
            </div>
            <p class="error-where">
              <span class="chip"><i class="dot" style={{ background: serviceColour(f.service, theme) }} />{f.service}</span>
              <span class="quiet">at {duration(f.offset_ns)} · told by {f.source === 'event' ? 'an exception event' : f.source === 'status' ? "the span's status" : 'a log line'}</span>
              {i >= 0 && <button class="link-button" type="button" onClick={() => view.select(i)}>{view.tree.spans[i]!.operation}</button>}
            </p>
            {f.stack && (
              <details class="stack" open={k < OPEN_STACKS}>
                <summary>Stack</summary>
                <div class="stack-body"><pre tabIndex={0} aria-label="Stack">{f.stack}</pre><Copy text={f.stack} what="the stack" /></div>
              </details>
            )}
          </li>
        );
      })}
      {errors.length > MAX_SHOWN && <li class="quiet">{errors.length - MAX_SHOWN} more are marked in the waterfall; <kbd>e</kbd> steps through them.</li>}
    </ol>
  );
}
