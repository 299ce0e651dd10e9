/** The real binary in an empty directory on free ports, and the OTLP/JSON door of it. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { otlpLogs, otlpTraces, type SentTrace } from './telemetry.ts';

const ROOT = new URL('../../../', import.meta.url).pathname;
/** A request stays well below the door's limit, as an SDK's would. */
const SPANS_A_REQUEST = 5_000;
const START_MS = 30_000;
const STOP_MS = 10_000;
const POLL_MS = 50;

/** The newest of the places where a build leaves the binary. */
export function findBinary(): string | null {
  const named = process.env['TRACKLINE_BIN'];
  if (named) return existsSync(named) ? named : null;
  const target = process.env['CARGO_TARGET_DIR'] ?? join(ROOT, 'target');
  const built = ['debug', 'release'].map((profile) => join(target, profile, 'trackline')).filter((p) => existsSync(p));
  return built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0] ?? null;
}

export function findChromium(): string | null {
  const path = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
  return existsSync(path) ? path : null;
}

/** The tables that services write, as SPEC T5 has them; Node of this age has no SQLite of its own. */
function makeDatabase(path: string): boolean {
  return python('c.execute("CREATE TABLE workflow_executions (id TEXT, workflow_id TEXT, tracking_id TEXT, status TEXT, created_at TEXT)")', path);
}

function python(statement: string, ...args: string[]): boolean {
  const run = spawnSync('python3', ['-c', `import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n${statement}\nc.commit()`, ...args], { encoding: 'utf8' });
  if (run.error) return false;
  if (run.status !== 0) throw new Error(run.stderr);
  return true;
}

async function freePorts(n: number): Promise<number[]> {
  const held = await Promise.all(Array.from({ length: n }, () => new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
    const s = createServer();
    s.once('error', reject);
    s.listen(0, '127.0.0.1', () => resolve(s));
  })));
  const ports = held.map((s) => (s.address() as { port: number }).port);
  await Promise.all(held.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}

export class Server {
  private constructor(readonly url: string, private readonly otlp: string, private readonly process: ChildProcess, private readonly directory: string, private readonly database: string, private readonly said: () => string) {}

  static async start(binary: string): Promise<Server> {
    const directory = mkdtempSync(join(tmpdir(), 'trackline-ui-'));
    const [ui, http, grpc, health] = await freePorts(4);
    const doors = { '--ui': ui, '--otlp-http': http, '--otlp-grpc': grpc, '--health': health };
    const database = join(directory, 'app.db');
    const flags = Object.entries(doors).flatMap(([flag, port]) => [flag, `127.0.0.1:${port}`]);
    if (makeDatabase(database)) flags.push('--database', `sqlite:${database}`);
    const child = spawn(binary, ['serve', '--data-dir', join(directory, 'data'), '--jaeger-grpc', 'none', '--jaeger-thrift', 'none', ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    child.stdout!.on('data', (d) => { said += d; });
    child.stderr!.on('data', (d) => { said += d; });
    const server = new Server(`http://127.0.0.1:${ui}`, `http://127.0.0.1:${http}`, child, directory, database, () => said);
    await until('the server is ready', async () => {
      if (child.exitCode !== null) throw new Error(`trackline serve ended with ${child.exitCode}:\n${said}`);
      return (await server.get('/api/trackline/v1/status'))?.['ready'] === true;
    }, START_MS, () => said);
    return server;
  }

  /** Puts a row with the trace's id into the application's database; false where there is no Python to do so. */
  insertExecution(trace: SentTrace, id: string): boolean {
    return python(`c.execute("INSERT INTO workflow_executions VALUES (?, 'wf-81', ?, 'failed', '2026-01-02T03:04:05Z')", (sys.argv[2], sys.argv[3]))`, this.database, id, trace.id);
  }

  /** The parsed answer, or null while there is none. */
  async get(path: string): Promise<Record<string, unknown> | null> {
    try {
      const response = await fetch(this.url + path);
      return response.ok ? ((await response.json()) as Record<string, unknown>) : null;
    } catch {
      return null;
    }
  }

  /** Sends spans and logs, and returns when they are acknowledged. */
  async sendMore(trace: SentTrace): Promise<void> {
    for (let i = 0; i < trace.spans.length; i += SPANS_A_REQUEST) await this.post('/v1/traces', otlpTraces(trace, trace.spans.slice(i, i + SPANS_A_REQUEST)));
    if (trace.logs.length) await this.post('/v1/logs', otlpLogs(trace));
  }

  /** Sends a trace and its logs, and waits until a query finds all of it. */
  async send(trace: SentTrace): Promise<string> {
    await this.sendMore(trace);
    await until(`trace ${trace.id} is queryable`, async () => {
      const story = (await this.get(`/api/trackline/v1/tracking/${trace.id}?detail=outline`)) as { trace: { span_count: number }; logs: unknown[] } | null;
      return story?.trace.span_count === trace.spans.length && story.logs.length === trace.logs.length;
    }, START_MS, this.said);
    return trace.id;
  }

  private async post(path: string, body: object): Promise<void> {
    const response = await fetch(this.otlp + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${await response.text()}`);
  }

  async stop(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.process.once('exit', () => resolve()));
    this.process.kill('SIGTERM');
    const hurry = setTimeout(() => this.process.kill('SIGKILL'), STOP_MS);
    await ended;
    clearTimeout(hurry);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function until(what: string, holds: () => Promise<boolean>, withinMs: number, said: () => string): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited ${withinMs} ms in vain until ${what}; the server said:\n${said()}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
