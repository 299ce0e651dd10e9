/** What the trace was, in one look: where it began, when, how long, who took part, what it cost, how it ended. */
import type { Status, Story } from '../api.ts';
import { serviceColour } from '../colour.ts';
import { Copy } from '../copy.tsx';
import { ago, count, dateTime, duration, plural, unixMillis, usd } from '../format.ts';
import { Icon } from '../icon.tsx';
import { adjust, usePlace } from '../route.ts';
import { useTheme } from '../theme.ts';
import type { View } from './view.ts';

const TITLE: Record<Status, string> = {
  found: 'Complete',
  partial: 'Partial',
  not_sampled: 'Not sampled',
  expired: 'Expired',
  unknown: 'Unknown',
};

export function Header({ view, waiting }: { view: View; waiting: boolean }) {
  const { story } = view;
  const t = story.trace;
  const theme = useTheme();
  const raw = usePlace().query.get('clocks') === 'raw';
  const millis = t && t.start_unix_nano !== '0' ? unixMillis(t.start_unix_nano) : 0;
  const first = story.errors[0];
  const firstSpan = first?.span_id ? (view.tree.byId.get(first.span_id) ?? -1) : -1;

  return (
    <header class="trace-head">
      <div class="trace-title">
        <h1>{t?.root ? <><span class="title-service">{t.root.service}</span> {t.root.operation}</> : titleWithoutRoot(story)}</h1>
        {story.status !== 'found' && <span class={`status status-${story.status}`}>{TITLE[story.status]}</span>}
        <Copy text={story.tracking_id} what="the tracking ID"><code class="tracking-id">{story.tracking_id}</code></Copy>
      </div>
      {t && t.span_count > 0 && (
        <dl class="facts">
          <div><dt>When</dt><dd title={ago(millis, Date.now())}><time dateTime={new Date(millis).toISOString()}>{dateTime(millis)}</time></dd></div>
          <div><dt>Duration</dt><dd>{duration(t.clock_skew && !raw ? view.tree.to - view.tree.from : t.duration_ns)}</dd></div>
          <div><dt>Spans</dt><dd>{count(t.span_count)}{view.story.more.spans_cut ? <span class="quiet"> +{count(view.story.more.spans_cut)} left out</span> : null}</dd></div>
          <div><dt>Depth</dt><dd>{t.depth}</dd></div>
          <div><dt>Errors</dt><dd>{t.error_count ? <span class="errors"><Icon name="error" />{count(t.error_count)}</span> : '0'}</dd></div>
          <div><dt>Logs</dt><dd>{count(story.logs.length)}</dd></div>
          {story.ai && story.ai.calls.length > 0 && <div><dt>AI</dt><dd>{usd(story.ai.cost_usd)} <span class="quiet">{count(story.ai.input_tokens + story.ai.output_tokens)} tokens</span></dd></div>}
          <div class="facts-services"><dt>Services</dt><dd>{t.services.map((s) => (
            <span key={s.name} class="chip" title={`${plural(s.spans, 'span')}, ${plural(s.errors, 'error')}`}><i class="dot" style={{ background: serviceColour(s.name, theme) }} />{s.name}<span class={s.errors ? 'bad' : 'quiet'}>{count(s.spans)}{s.errors ? ` · ${plural(s.errors, 'error')}` : ''}</span></span>
          ))}</dd></div>
        </dl>
      )}
      {story.status !== 'found' && (
        <p class={`explain explain-${story.status}`} role="status">{story.explanation}{waiting && <span class="quiet"> Looking again …</span>}</p>
      )}
      {first && (
        <p class="first-error">
          <Icon name="error" />
          <span><strong>{first.type || 'Error'}</strong> {first.message} <span class="where">in {first.service}</span></span>
          {firstSpan >= 0 && <button class="link-button" type="button" onClick={() => view.select(firstSpan)}>Show span</button>}
          {story.errors.length > 1 && <button class="link-button" type="button" onClick={() => adjust({ tab: 'errors' })}>All {story.errors.length}</button>}
        </p>
      )}
      {t?.clock_skew && (
        <p class="skew-note"><Icon name="skew" />
          {raw ? 'Clocks of the hosts disagree; spans are drawn as their hosts said.' : 'Clocks of the hosts disagree; spans with a clock mark are moved to where their callers allow, dashes show what they said.'}{' '}
          <button class="link-button" type="button" onClick={() => adjust({ clocks: raw ? null : 'raw' })}>{raw ? 'Correct them' : 'As they said'}</button>
        </p>
      )}
    </header>
  );
}

function titleWithoutRoot(story: Story): string {
  if (story.status === 'unknown') return 'Nothing is known of this tracking ID';
  if (story.status === 'expired') return 'This trace is older than what is kept';
  return story.logs.length ? 'Logs without spans' : 'Root not seen';
}
