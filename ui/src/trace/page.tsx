/** The tracking page: one id, its whole story. */
import { useEffect, useState } from 'preact/hooks';
import { ApiError, tracking, type Story } from '../api.ts';

export function TracePage({ asked }: { asked: string }) {
  const [story, set] = useState<Story | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    tracking(asked, stop.signal).then(set, (e) => { if (!stop.signal.aborted) setError(e); });
    return () => stop.abort();
  }, [asked]);
  if (error) return <section class="notice"><h1>{error.message}</h1><p>{error.hint}</p></section>;
  if (!story) return <p class="quiet pad">Loading …</p>;
  return <section class="notice"><h1>{story.trace?.root?.operation ?? story.tracking_id}</h1><p>{story.explanation}</p></section>;
}
