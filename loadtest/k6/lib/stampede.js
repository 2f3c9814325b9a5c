// What every script says to Stampede, and how it knows that nothing was given twice. No remote imports.
//
// `deploy/run --k6 SCRIPT` sets STAMPEDE_API (http://host:port), STAMPEDE_JWT_SECRET (signs tokens as the development
// stack takes them) and STAMPEDE_REPORT (where the HTML report goes).
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const API = __ENV.STAMPEDE_API;
const SECRET = __ENV.STAMPEDE_JWT_SECRET;
const PATIENCE_SECONDS = 60;

// Sold out (409) is an answer, and so is "come back later" (503, 429), after which the same is asked again.
http.setResponseCallback(http.expectedStatuses(200, 201, 202, 409, 429, 503));

// Users who were told a code.
export const won = new Counter('won');
// Users who were told that nothing is left.
export const soldOut = new Counter('sold_out');
// Requests that ended without an outcome, or with one that nobody should be told here.
export const unresolved = new Counter('unresolved');
// What Stampede counts and what users were told differ: something was lost, or given twice.
export const miscounted = new Counter('miscounted');
// From the first try to the outcome of a claim, in milliseconds.
export const toOutcome = new Trend('claim_to_outcome', true);

export function number(name, otherwise) {
  return __ENV[name] === undefined ? otherwise : Number(__ENV[name]);
}

const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');

export function token(sub, role) {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const claims = { sub, roles: [role], iss: 'stampede', aud: 'stampede', exp };
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${crypto.hmac('sha256', SECRET, text, 'base64rawurl')}`;
}

// One who asks: `as('user', 'ann').post('/v1/…', {…})`. `name` groups the paths of one kind in the figures.
export function as(role, sub) {
  const authorization = `Bearer ${token(sub, role)}`;
  const ask = (method, name, path, body, key) => {
    const headers = { Authorization: authorization };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (key !== undefined) headers['Idempotency-Key'] = key;
    const text = body === undefined ? null : JSON.stringify(body);
    return http.request(method, API + path, text, { headers, tags: { name }, timeout: '60s' });
  };
  // Again and again while Stampede says, or the connection suggests, that the same may succeed later.
  const insist = (...request) => {
    const until = Date.now() + PATIENCE_SECONDS * 1000;
    for (;;) {
      const reply = ask(...request);
      const later = reply.status === 0 || reply.status === 429 || reply.status >= 500;
      if (!later || Date.now() > until) return reply;
      sleep(Number(reply.headers['Retry-After'] || 0.2));
    }
  };
  return {
    get: (name, path) => insist('GET', name, path),
    post: (name, path, body, key) => insist('POST', name, path, body, key),
    del: (name, path, key) => insist('DELETE', name, path, undefined, key),
    // One try: whoever sends it again may send it twice.
    tryPost: (name, path, body) => ask('POST', name, path, body),
  };
}

// The final outcome of a request, however long it takes: waited for, then asked for. Null: there is none.
export function outcome(user, reply) {
  const until = Date.now() + PATIENCE_SECONDS * 1000;
  let now = reply;
  while (now.status === 200 || now.status === 202) {
    const said = now.json();
    if (said.status !== 'pending') return said;
    if (Date.now() > until) return null;
    now = user.get('/v1/requests/{id}', `/v1/requests/${said.request_id}?wait=10`);
  }
  return null;
}

// A new coupon whose codes can be claimed; answers its id.
export function makeCoupon(codes, more) {
  const admin = as('admin', 'admin');
  const id = `k6-${Date.now().toString(36)}-${Math.floor(Math.random() * 1e6).toString(36)}`;
  const discount = { type: 'PERCENTAGE', value: '20.00', currency: 'EUR' };
  const coupon = Object.assign({ id, name: 'k6', discount, limits: { claims_per_user: 1 } }, more);
  if (admin.post('/v1/coupons', '/v1/coupons', coupon).status !== 201) exec.test.abort('the coupon was refused');
  const generate = `/v1/coupons/${id}/codes/generate`;
  if (admin.post('…/codes/generate', generate, { count: codes }).status !== 202) exec.test.abort('no codes');
  for (let tries = 0; counts(id).available < codes; tries += 1) {
    if (tries > 600) exec.test.abort(`the ${codes} codes did not become stock`);
    sleep(0.2);
  }
  return id;
}

// The public counters.
export function counts(coupon) {
  return as('admin', 'admin').get('/v1/coupons/{id}', `/v1/coupons/${coupon}`).json().counts;
}

// Compares what Stampede counts in the end with what must be there. A code that two users were told would be counted
// once, but won twice; so with the threshold on `won` nothing can have been given twice.
export function settled(coupon, wanted) {
  let is = {};
  for (let tries = 0; tries < 300; tries += 1) {
    is = counts(coupon);
    const off = Object.keys(wanted).filter((state) => is[state] !== wanted[state]);
    if (off.length === 0) return miscounted.add(0);
    sleep(0.2);
  }
  console.error(`counted ${JSON.stringify(is)}, wanted ${JSON.stringify(wanted)}`);
  return miscounted.add(1);
}
