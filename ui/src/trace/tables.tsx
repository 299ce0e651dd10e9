/** The tables beside the trace: what AI calls used and cost, and the database rows that carry the tracking ID. */
import type { AiCall, Story } from '../api.ts';
import { serviceColour } from '../colour.ts';
import { count, duration, usd } from '../format.ts';
import { Icon } from '../icon.tsx';
import { useTheme } from '../theme.ts';
import { asText } from './values.tsx';
import type { View } from './view.ts';

export function AiCalls({ view }: { view: View }) {
  const theme = useTheme();
  const ai = view.story.ai;
  if (!ai?.calls.length) return <p class="quiet pad">No AI call in this trace. Spans with <code>gen_ai.request.model</code> or <code>cost.usd</code> appear here.</p>;
  const pick = (c: AiCall) => { const i = view.tree.byId.get(c.span_id); if (i !== undefined) view.select(i); };
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label="AI calls">
      <table class="plain">
        <thead><tr><th>Service</th><th>Model</th><th>Provider</th><th class="num">Tokens in</th><th class="num">Tokens out</th><th class="num">Cost</th><th class="num">Duration</th><th>Outcome</th></tr></thead>
        <tbody>
          {ai.calls.map((c, k) => (
            <tr key={k}>
              <td><span class="chip"><i class="dot" style={{ background: serviceColour(c.service, theme) }} />{c.service}</span></td>
              <td><button class="link-button" type="button" onClick={() => pick(c)}>{c.model || 'paid call'}</button></td>
              <td>{c.provider}</td>
              <td class="num">{count(c.input_tokens)}</td>
              <td class="num">{count(c.output_tokens)}</td>
              <td class="num">{c.cost_usd === null ? <span class="quiet">not told</span> : usd(c.cost_usd)}</td>
              <td class="num">{duration(c.duration_ns)}</td>
              <td>{c.error ? <span class="errors"><Icon name="error" />{c.error}</span> : 'ok'}</td>
            </tr>
          ))}
        </tbody>
        <tfoot><tr><th scope="row" colSpan={3}>Together</th><td class="num">{count(ai.input_tokens)}</td><td class="num">{count(ai.output_tokens)}</td><td class="num">{usd(ai.cost_usd)}</td><td /><td /></tr></tfoot>
      </table>
    </div>
  );
}

export function Rows({ story }: { story: Story }) {
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label="Database rows">
      {story.rows_error && <div class="trouble"><Icon name="error" /><div>{story.rows_error}</div></div>}
      {!story.rows.length && !story.rows_error && <p class="quiet pad">No row of a configured database carries this tracking ID.</p>}
      {story.rows.map((t) => (
        <section key={t.source + t.table} class="rows">
          <h3>{t.table} <span class="quiet">{t.source}</span></h3>
          <table class="plain">
            <thead><tr>{t.columns.map((c) => <th key={c}>{c}</th>)}</tr></thead>
            <tbody>{t.rows.map((r, k) => <tr key={k}>{r.map((v, j) => <td key={j}>{v === null ? <span class="quiet">null</span> : <code>{asText(v)}</code>}</td>)}</tr>)}</tbody>
          </table>
          {t.cut && <p class="quiet">More rows were left out.</p>}
        </section>
      ))}
    </div>
  );
}
