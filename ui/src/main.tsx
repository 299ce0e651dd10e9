/** Starts the page: theme before the first paint, then the app. */
import { render } from 'preact';
import { App } from './app.tsx';
import { followLinks } from './route.ts';
import { apply } from './theme.ts';
import './style/tokens.css';
import './style/base.css';
import './style/recent.css';
import './style/trace.css';

apply();
followLinks();
render(<App />, document.getElementById('app')!);
