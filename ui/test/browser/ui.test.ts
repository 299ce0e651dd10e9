/** The page in a real browser on the real binary, fed with real OTLP. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { canvasPixels, drawn, nameless, openBrowser, poorContrast, selectedRow, type Opened } from './page.ts';
import { findBinary, findChromium, Server } from './server.ts';
import { failedWorkflow, hugeJob, newId, ordinaryChat, type SentTrace } from './telemetry.ts';

const binary = findBinary();
const browser = findChromium();
const missing = [binary ? '' : 'the trackline binary (cargo build, or name it in TRACKLINE_BIN)', browser ? '' : 'Chromium (install it, or name it in CHROMIUM)'].filter(Boolean);
if (missing.length) console.error(`\n  BROWSER TESTS SKIPPED: ${missing.join(' and ')} not found\n`);

const HUGE_SPANS = 100_000;
/** More elements than any view of ours needs, far fewer than spans. */
const MAX_ELEMENTS = 1_500;

describe.skipIf(missing.length > 0)('the web UI', () => {
  let server: Server;
  let failed: SentTrace;
  let chat: SentTrace;
  let skewed: SentTrace;
  let hasRows = false;
  let open: Opened | undefined;

  beforeAll(async () => {
    server = await Server.start(binary!);
    const now = Date.now();
    failed = failedWorkflow(now - 20_000);
    chat = ordinaryChat(now - 30_000);
    skewed = failedWorkflow(now - 40_000, 2_500);
    for (const t of [failed, chat, skewed]) await server.send(t);
    hasRows = server.insertExecution(failed, 'ex-9001');
  });
  afterAll(async () => { await server?.stop(); });
  afterEach(async () => {
    const problems = open?.problems ?? [];
    await open?.close();
    open = undefined;
    expect(problems).toEqual([]);
  });

  async function visit(path: string, options: Parameters<typeof openBrowser>[1] = {}) {
    open = await openBrowser(browser!, options);
    open.page.setDefaultTimeout(15_000);
    await open.page.goto(server.url + path);
    return open.page;
  }
  const title = 'api-gateway POST /api/workflows/{id}/execute';

  test('an id in any form finds its trace', async () => {
    const page = await visit('/');
    await page.getByRole('heading', { name: 'Recent traces' }).waitFor();
    const { id } = failed;
    const uuid = id.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5');
    const forms = [id, id.toUpperCase(), uuid, uuid.toUpperCase(), `00-${id}-00f067aa0ba902b7-01`, `X-Tracking-ID: ${id}`, `x-tracking-id: ${uuid}`, Buffer.from(id, 'hex').toString('base64'), `  {"@level":"ERROR","tracking_id":"${id}"} `];
    for (const form of forms) {
      await page.keyboard.press('/');
      await page.keyboard.insertText(form);
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: title }).waitFor();
      expect([form, new URL(page.url()).pathname]).toEqual([form, `/trace/${id}`]);
      await page.goBack();
      await page.getByRole('heading', { name: 'Recent traces' }).waitFor();
    }
    await page.goto(`${server.url}/trace/${uuid}`);
    await page.getByRole('heading', { level: 1, name: title }).waitFor();
    await expect.poll(() => new URL(page.url()).pathname).toBe(`/trace/${id}`);
  });

  test('what is no id is said, by the box and by the server', async () => {
    const page = await visit('/');
    await page.getByRole('textbox', { name: 'Find a tracking ID' }).fill('what failed yesterday');
    await page.keyboard.press('Enter');
    await page.getByText('No tracking ID found in this text').waitFor();
    await page.goto(`${server.url}/trace/nonsense`);
    await page.getByRole('alert').waitFor();
    expect(await page.getByRole('alert').innerText()).toContain('nonsense');
    // The browser itself notes the 400 in its console.
    open!.problems.length = 0;
  });

  test('recent traces, filtered, as a link', async () => {
    const page = await visit('/');
    const rows = page.locator('table.recent tbody tr');
    await rows.first().waitFor();
    expect(await rows.count()).toBe(3);
    expect(await rows.first().innerText()).toMatch(/api-gateway POST \/api\/workflows\/\{id\}\/execute/);
    await page.getByLabel('Errors only').check();
    await expect.poll(() => rows.count()).toBe(2);
    await page.getByLabel('Errors only').uncheck();
    await page.getByLabel('Service').selectOption('workflow-scheduler');
    await expect.poll(() => rows.count()).toBe(2);
    await page.getByLabel('Operation').selectOption('POST /retries');
    await page.getByLabel('Longer than').fill('10s');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'No trace matches' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: 'No trace matches' }).waitFor();
    expect(await page.getByLabel('Longer than').inputValue()).toBe('10s');
    await page.getByRole('button', { name: 'Clear filters' }).click();
    await expect.poll(() => rows.count()).toBe(3);
    await page.getByLabel('Tags').fill('http.route=/api/chat');
    await page.keyboard.press('Enter');
    await expect.poll(() => rows.count()).toBe(1);
    await rows.first().getByRole('link').click();
    await page.getByRole('heading', { level: 1, name: 'api-gateway POST /api/chat' }).waitFor();
  });

  test('a new trace appears while one looks', async () => {
    const page = await visit('/?tag=http.route%3D%2Ffresh');
    await page.getByRole('heading', { name: 'No trace matches' }).waitFor();
    const fresh = ordinaryChat(Date.now());
    fresh.spans[0]!.attributes['http.route'] = '/fresh';
    await server.send(fresh);
    await page.locator(`a[href="/trace/${fresh.id}"]`).waitFor();
  });

  test('the waterfall draws bars in the colours of the services, and errors in red', async () => {
    const page = await visit(`/trace/${failed.id}`);
    await page.locator('.facts-services .dot').first().waitFor();
    const colours = await page.locator('.facts-services .dot').evaluateAll((dots) => dots.map((d) => getComputedStyle(d).backgroundColor));
    expect(new Set(colours).size).toBe(4);
    const red = await page.locator('.first-error strong').evaluate((e) => getComputedStyle(e).color);
    const { counts } = await canvasPixels(page, [...colours.slice(0, 3), red]);
    for (const n of counts) expect(n).toBeGreaterThan(150);
    const rows = page.getByRole('treeitem');
    await expect.poll(() => rows.count()).toBeGreaterThan(10);
    expect(await rows.first().textContent()).toMatch(/^api-gateway POST \/api\/workflows\/\{id\}\/execute, 1\.84 s, starts at 0 ns, error: HTTP 502/);
    // Zooming by dragging draws other bars and is in the link.
    const before = await canvasPixels(page);
    const box = (await page.locator('.waterfall-canvas').boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.6, box.y + 80);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.8, box.y + 90, { steps: 4 });
    await page.mouse.up();
    await expect.poll(() => new URL(page.url()).searchParams.get('t')).toMatch(/^\d+\.\.\d+$/);
    expect((await canvasPixels(page)).hash).not.toBe(before.hash);
  });

  test('everything by keyboard alone', async () => {
    const page = await visit('/?tag=http.response.status_code%3D502');
    await page.locator('table.recent tbody tr').first().waitFor();
    const press = async (...keys: string[]) => { for (const k of keys) await page.keyboard.press(k); await drawn(page); };
    await press('j', 'j', 'k');
    expect(await page.evaluate(() => (document.activeElement as HTMLAnchorElement).pathname)).toBe(`/trace/${failed.id}`);
    await press('Enter');
    await page.getByRole('heading', { level: 1, name: title }).waitFor();
    await page.getByRole('tree').waitFor();

    await press('j', 'ArrowDown', 'j', 'k');
    await expect.poll(() => selectedRow(page)).toContain('authenticate');
    await press('ArrowLeft');
    expect(await page.getByRole('treeitem', { selected: true }).getAttribute('aria-expanded')).toBe('false');
    await press('j');
    await expect.poll(() => selectedRow(page)).toContain('workflow-agent/plan');
    await press('k', 'ArrowRight', 'ArrowRight');
    await expect.poll(() => selectedRow(page)).toContain('SELECT sessions');
    await press('ArrowLeft', 'ArrowLeft', 'ArrowLeft');
    await expect.poll(() => selectedRow(page)).toContain('POST /api/workflows/{id}/execute');

    await press('e');
    await expect.poll(() => selectedRow(page)).toContain('POST workflow-engine/executions');
    await press('Shift+E', 'Shift+E');
    await expect.poll(() => selectedRow(page)).toContain('chat claude-haiku');

    await press('Enter');
    expect(await page.evaluate(() => document.activeElement!.getAttribute('aria-label'))).toBe('Span chat claude-haiku');
    await press('Escape');
    expect(await page.evaluate(() => document.activeElement!.getAttribute('role'))).toBe('tree');

    await press('z');
    await expect.poll(() => new URL(page.url()).searchParams.has('t')).toBe(true);
    await press('-', '0');
    await expect.poll(() => new URL(page.url()).searchParams.has('t')).toBe(false);
    await press('c');
    await expect.poll(() => page.getByRole('treeitem').count()).toBe(4);
    await press('c');

    await press('s');
    await page.keyboard.type('claude-haiku');
    await press('Enter', 'Enter');
    await expect.poll(() => page.locator('.found').innerText()).toBe('3');
    await expect.poll(() => selectedRow(page)).toContain('chat claude-haiku');
    await expect.poll(() => new URL(page.url()).searchParams.get('find')).toBe('claude-haiku');
    await press('Escape', 'Escape');

    await press('x');
    expect(await page.getByRole('tab', { selected: true }).innerText()).toMatch(/^Errors/);
    await press('f');
    await expect.poll(() => page.evaluate(() => document.activeElement!.id)).toBe('log-filter');
    await page.keyboard.type('rate limited');
    await expect.poll(() => page.getByRole('option').filter({ visible: true }).locator('xpath=self::div').count()).toBe(2);
    await press('Escape', 'Escape');

    await press('?');
    await page.getByRole('dialog').waitFor();
    await press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
    await press('/');
    expect(await page.evaluate(() => document.activeElement!.getAttribute('aria-label'))).toBe('Find a tracking ID');
    await press('Escape');

    // Tab reaches every part of the page, and shows where it is.
    await page.getByRole('link', { name: 'Trackline, recent traces' }).focus();
    const seen = new Set<string>();
    for (let i = 0; i < 30; i++) {
      await page.keyboard.press('Tab');
      seen.add(await page.evaluate(() => document.activeElement!.getAttribute('role') ?? document.activeElement!.tagName));
    }
    for (const stop of ['tree', 'separator', 'tab', 'listbox', 'BUTTON', 'INPUT']) expect([...seen]).toContain(stop);
  });

  test('dark as the system wishes, until one chooses', async () => {
    const page = await visit(`/trace/${failed.id}`, { dark: true });
    await page.getByRole('tree').waitFor();
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const brightness = (css: string) => css.match(/\d+/g)!.slice(0, 3).reduce((n, v) => n + Number(v), 0) / 3;
    expect(brightness(await ground())).toBeLessThan(40);
    expect(brightness((await canvasPixels(page)).corner)).toBeLessThan(60);
    const button = page.getByRole('button', { name: /^Colours/ });
    await button.click();
    expect(brightness(await ground())).toBeGreaterThan(230);
    await expect.poll(async () => brightness((await canvasPixels(page)).corner)).toBeGreaterThan(230);
    await page.reload();
    await page.getByRole('tree').waitFor();
    expect(brightness(await ground())).toBeGreaterThan(230);
    await button.click();
    expect(brightness(await ground())).toBeLessThan(40);
  });

  test('logs: filtered, tied to spans, as a link', async () => {
    const page = await visit(`/trace/${failed.id}`);
    const lines = page.locator('.log-box .line');
    await expect.poll(() => page.locator('.logs [role=status]').innerText()).toBe('11 lines');
    await page.getByLabel('Filter logs by text').fill('node summarise failed');
    await expect.poll(() => lines.count()).toBe(1);
    await page.getByLabel('Filter logs by text').fill('');
    await page.getByLabel('Lowest level').selectOption('warn');
    await expect.poll(() => lines.count()).toBe(4);
    expect(await lines.locator('.line-level').allInnerTexts()).toEqual(['WARN', 'WARN', 'ERROR', 'ERROR']);
    await lines.first().locator('.line-row').click();
    await expect.poll(() => selectedRow(page)).toContain('node summarise');
    await page.getByText('retry.after_ms').waitFor();
    await page.getByLabel('Of which spans').selectOption('span');
    await expect.poll(() => lines.count()).toBe(3);
    expect(await page.locator('.line.mine').count()).toBe(3);

    await expect.poll(() => page.url()).toContain('span=');
    const other = await open!.context.newPage();
    await other.goto(page.url());
    await other.getByText('retry.after_ms').waitFor();
    expect(await other.locator('.log-box .line').count()).toBe(3);
    expect(await selectedRow(other)).toContain('node summarise');
  });

  test('errors with their stacks lead to their spans, and the span tells all', async () => {
    const page = await visit(`/trace/${failed.id}?tab=errors`);
    const stack = page.locator('.error-list pre');
    await stack.first().waitFor({ state: 'attached' });
    expect(await stack.first().textContent()).toContain('src/nodes/llm.rs:142');
    // Three tries are one entry; what became of the last of them up to the root is its layers, not failures of their own.
    expect(await page.locator('.error-list > li').count()).toBe(1);
    const layers = page.getByRole('list', { name: 'Seen in its callers' });
    expect(await layers.locator('li').first().innerText()).toMatch(/workflow-engine\s+node summarise/);
    expect(await layers.locator('li').last().innerText()).toMatch(/api-gateway\s+POST \/api\/workflows\/\{id\}\/execute/);
    await layers.getByRole('button', { name: 'POST /executions' }).click();
    await page.getByRole('complementary', { name: 'Span POST /executions' }).getByText('because of').first().waitFor();
    await page.locator('.error-list').getByRole('button', { name: 'node summarise' }).first().click();
    const panel = page.getByRole('complementary', { name: 'Span node summarise' });
    await panel.getByText('node.attempts').waitFor();
    const said = await panel.innerText();
    for (const text of ['engine.nodes.NodeFailed', 'workflow-engine.local', 'exception', 'host.name', 'workflow_engine::http']) expect(said).toContain(text);
    await page.getByRole('tab', { name: /^AI/ }).click();
    expect(await page.locator('.plain tfoot').innerText()).toMatch(/17,504\s+412\s+\$0\.024/);
    await page.getByRole('tab', { name: /^Rows/ }).click();
    if (hasRows) expect(await page.locator('.rows').innerText()).toMatch(/workflow_executions[^]*ex-9001[^]*failed/);
    else await page.getByText('No row of a configured database').waitFor();
  });

  test('clocks that disagree are marked, corrected, and shown as they were on request', async () => {
    const page = await visit(`/trace/${skewed.id}`);
    await page.getByText('Clocks of the hosts disagree').waitFor();
    const row = page.getByRole('treeitem', { name: /workflow-engine POST \/executions/ });
    await expect.poll(() => row.textContent()).toContain('clock corrected by');
    const at = async () => Number(/starts at ([\d.]+) ms/.exec((await row.textContent()) ?? '')?.[1]);
    expect(await at()).toBeGreaterThan(600);
    expect(await at()).toBeLessThan(700);
    await page.getByRole('button', { name: 'As they said' }).click();
    await expect.poll(() => row.textContent()).toContain('starts at 3.16 s');
    await expect.poll(() => page.url()).toContain('clocks=raw');
  });

  test('what is unknown, partial or not sampled says so', async () => {
    const page = await visit(`/trace/${newId(16)}`);
    await page.getByRole('heading', { level: 1, name: /Nothing is known/ }).waitFor();
    await page.getByText('Looking again').waitFor();

    const unsampled = { ...failedWorkflow(Date.now() - 5_000), spans: [], sampled: false };
    await server.send(unsampled);
    await page.goto(`${server.url}/trace/${unsampled.id}`);
    await page.locator('.status-not_sampled').waitFor();
    await expect.poll(() => page.locator('.log-box .line').count()).toBeGreaterThan(8);

    const late = ordinaryChat(Date.now() - 1000);
    const [root, ...rest] = late.spans;
    late.spans = rest;
    await server.send(late);
    await page.goto(`${server.url}/trace/${late.id}`);
    await page.locator('.status-partial').waitFor();
    await expect.poll(() => page.getByRole('treeitem').first().textContent()).toContain('its parent is missing');
    // The root arrives, and the page finds it by itself.
    late.spans = [root!];
    late.logs = [];
    await server.sendMore(late);
    await page.getByRole('heading', { level: 1, name: 'api-gateway POST /api/chat' }).waitFor();
    await page.locator('.status-partial').waitFor({ state: 'detached' });
  });

  test(`${HUGE_SPANS} spans scroll with few elements, and every stop is drawn`, async () => {
    const id = await server.send(hugeJob(Date.now() - 60_000, HUGE_SPANS));
    const page = await visit(`/trace/${id}`);
    await page.getByRole('tree').waitFor({ timeout: 60_000 });
    const tree = page.locator('.waterfall-scroll');
    const pictures = new Set<number>();
    const rows = new Set<string>();
    for (let stop = 0; stop < 12; stop++) {
      await tree.evaluate((e, share) => { e.scrollTop = e.scrollHeight * share; }, stop / 11);
      pictures.add((await canvasPixels(page)).hash);
      expect(await page.evaluate(() => document.querySelectorAll('*').length)).toBeLessThan(MAX_ELEMENTS);
      await expect.poll(async () => { const t = await page.getByRole('treeitem').first().textContent(); const fresh = !rows.has(t!); return fresh; }).toBe(true);
      rows.add((await page.getByRole('treeitem').first().textContent())!);
    }
    expect(pictures.size).toBe(12);

    // Frames keep coming while the wheel turns without pause.
    await tree.evaluate((e) => { e.scrollTop = 0; });
    await tree.hover();
    const moving = new Set<number>();
    for (let turn = 0; turn < 25; turn++) {
      await page.mouse.wheel(0, 4_000);
      moving.add((await canvasPixels(page)).hash);
    }
    expect(moving.size).toBeGreaterThan(20);

    // An outline has no attributes; a selected span is fetched in full.
    await page.keyboard.press('End');
    await page.getByText('item.index').waitFor();
    await expect.poll(() => selectedRow(page)).toMatch(/^\S+ step \d+ of depth \d/);
  });

  test.each([[1440, false], [1440, true], [900, true], [390, false]])('readable and named at %d px, dark: %s', async (width, dark) => {
    const page = await visit('/', { width, dark, height: 900 });
    await page.locator('table.recent tbody tr').first().waitFor();
    const check = async (what: string) => expect([what, await poorContrast(page), await nameless(page)]).toEqual([what, [], []]);
    await check('recent traces');
    await page.goto(`${server.url}/trace/${failed.id}`);
    await page.getByRole('tree').waitFor();
    await page.keyboard.press('e');
    await page.locator('.span-panel .values').first().waitFor();
    await check('logs');
    for (const tab of ['errors', 'ai', 'rows']) {
      await page.goto(`${server.url}/trace/${failed.id}?tab=${tab}`);
      await page.getByRole('tree').waitFor();
      await check(tab);
    }
    await page.keyboard.press('?');
    await check('help');
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true);
  });
});
