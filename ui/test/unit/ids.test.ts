import { expect, test } from 'vitest';
import { parseId } from '../../src/ids.ts';

const ID = '4bf92f3577b34da6a3ce929d0e0e4736';

test.each([
  ['hex', ID, ID],
  ['hex', `  ${ID.toUpperCase()}\n`, ID],
  ['hex', `"${ID}",`, ID],
  ['hex', `0x${ID}`, ID],
  ['short hex', '0Xa3ce929d0e0e4736', '0000000000000000a3ce929d0e0e4736'],
  ['text', `span of trace 0x${ID} failed`, ID],
  ['short hex', 'A3ce929d0e0e4736', '0000000000000000a3ce929d0e0e4736'],
  ['short hex', '1', '00000000000000000000000000000001'],
  ['uuid', '4BF92F35-77b3-4da6-a3ce-929d0e0e4736', ID],
  ['uuid', '{4bf92f35-77b3-4da6-a3ce-929d0e0e4736}', ID],
  ['traceparent', `00-${ID}-00f067aa0ba902b7-01`, ID],
  ['traceparent', `cc-${ID}-00f067aa0ba902b7-01-what-the-future-will-be-like`, ID],
  ['header', `X-Tracking-ID: ${ID}`, ID],
  ['header', `x-tracking-id:4bf92f35-77b3-4da6-a3ce-929d0e0e4736`, ID],
  ['header', `traceparent: 00-${ID}-00f067aa0ba902b7-01`, ID],
  ['header', `"tracking_id":"${ID}",`, ID],
  ['header', 'trace_id=a3ce929d0e0e4736', '0000000000000000a3ce929d0e0e4736'],
  ['base64', 'S/kvNXezTaajzpKdDg5HNg==', ID],
  ['base64', 'S_kvNXezTaajzpKdDg5HNg', ID],
  ['text', `{"@level":"ERROR","@message":"boom","tracking_id":"${ID}","tracing":{"trace_id":"${ID}"}}`, ID],
  ['text', `GET /chat 502 4bf92f35-77b3-4da6-a3ce-929d0e0e4736 12 ms`, ID],
])('%s: %s', (form, text, id) => {
  expect(parseId(text)).toEqual({ id, form });
});

test.each([
  ['nothing', ''],
  ['words', 'hello world'],
  ['zeros', '0'.repeat(32)],
  ['a traceparent of zeros', `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`],
  ['33 digits', ID + '0'],
  ['two different ids', `${ID} ${ID.replace('4', '5')}`],
  ['a UUID with a digit too many', '4bf92f35-77b3-4da6-a3ce-929d0e0e47361'],
])('no id: %s', (_, text) => {
  expect(parseId(text)).toBeNull();
});
