// What all scripts share: tokens, requests with retries, outcomes, a coupon in stock, and its counters. No remote
// imports.
//
// `deploy/run --k6 SCRIPT` sets STAMPEDE_API (http://host:port), STAMPEDE_JWT_SECRET (signs tokens that the local stack
// accepts) and STAMPEDE_REPORT (the file for the HTML report).
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const API = __ENV.STAMPEDE_API;
const SECRET = __ENV.STAMPEDE_JWT_SECRET;
const TIMEOUT_SECONDS = 60;

// Expected: 409 (sold out) is a result; after 429 and 503 the same request is sent again.
http.setResponseCallback(http.expectedStatuses(200, 201, 202, 409, 429, 503));

// Users who got a code.
export const won = new Counter('won');
// Users who got sold_out.
export const soldOut = new Counter('sold_out');
// Requests without an outcome, or with one that cannot happen in the script.
export const unresolved = new Counter('unresolved');
// The counters of the coupon and the outcomes differ: a claim was lost, or a code was given twice.
export const miscounted = new Counter('miscounted');
// From the first attempt to the outcome of a claim, in milliseconds.
export const toOutcome = new Trend('claim_to_outcome', true);

// A number from the environment.
export function number(name, otherwise) {
  return __ENV[name] === undefined ? otherwise : Number(__ENV[name]);
}

const encode = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');

// An access token.
export function token(sub, role) {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const claims = { sub, roles: [role], iss: 'stampede', aud: 'stampede', exp };
  const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${text}.${crypto.hmac('sha256', SECRET, text, 'base64rawurl')}`;
}

// A caller: `as('user', 'ann').post('…/claims', '/v1/…', {…})`. `name` groups the paths of one kind in the figures.
export function as(role, sub) {
  const authorization = `Bearer ${token(sub, role)}`;
  const send = (method, name, path, body, key) => {
    const headers = { Authorization: authorization };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (key !== undefined) headers['Idempotency-Key'] = key;
    const text = body === undefined ? null : JSON.stringify(body);
    return http.request(method, API + path, text, { headers, tags: { name }, timeout: '60s' });
  };
  // Sends the same again after a lost response, 429 and 5xx, until the timeout.
  const sendWithRetries = (...request) => {
    const deadline = Date.now() + TIMEOUT_SECONDS * 1000;
    for (;;) {
      const response = send(...request);
      const isTransient = response.status === 0 || response.status === 429 || response.status >= 500;
      if (!isTransient || Date.now() > deadline) return response;
      sleep(Number(response.headers['Retry-After'] || 0.2));
    }
  };
  return {
    get: (name, path) => sendWithRetries('GET', name, path),
    post: (name, path, body, key) => sendWithRetries('POST', name, path, body, key),
    del: (name, path, key) => sendWithRetries('DELETE', name, path, undefined, key),
    // One attempt, for a request without a key: a second attempt could be a second request.
    tryPost: (name, path, body) => send('POST', name, path, body),
  };
}

// The outcome of a request: polled until the timeout, else null.
export function outcome(user, response) {
  const deadline = Date.now() + TIMEOUT_SECONDS * 1000;
  let latest = response;
  while (latest.status === 200 || latest.status === 202) {
    const result = latest.json();
    if (result.status !== 'pending') return result;
    if (Date.now() > deadline) return null;
    latest = user.get('/v1/requests/{id}', `/v1/requests/${result.request_id}?wait=10`);
  }
  return null;
}

// Creates a coupon, waits until its codes are in stock, and returns its id. `fields` are added to the definition.
export function createCoupon(codes, fields) {
  const admin = as('admin', 'admin');
  const id = `k6-${Date.now().toString(36)}-${Math.floor(Math.random() * 1e6).toString(36)}`;
  const discount = { type: 'PERCENTAGE', value: '20.00', currency: 'EUR' };
  const coupon = Object.assign({ id, name: 'k6', discount, limits: { claims_per_user: 1 } }, fields);
  if (admin.post('/v1/coupons', '/v1/coupons', coupon).status !== 201) exec.test.abort('the coupon was rejected');
  const generate = `/v1/coupons/${id}/codes/generate`;
  if (admin.post('…/codes/generate', generate, { count: codes }).status !== 202) exec.test.abort('no codes');
  for (let tries = 0; counts(id).available < codes; tries += 1) {
    if (tries > 600) exec.test.abort(`the ${codes} codes did not become stock`);
    sleep(0.2);
  }
  return id;
}

// The live counters of a coupon.
export function counts(coupon) {
  return as('admin', 'admin').get('/v1/coupons/{id}', `/v1/coupons/${coupon}`).json().counts;
}

// Waits until the counters of a coupon are the expected ones. A code with two winners would be counted once and won
// twice; so together with the threshold on `won` this proves that no code was given twice.
export function awaitCounts(coupon, expected) {
  let latest = {};
  for (let tries = 0; tries < 300; tries += 1) {
    latest = counts(coupon);
    const different = Object.keys(expected).filter((state) => latest[state] !== expected[state]);
    if (different.length === 0) return miscounted.add(0);
    sleep(0.2);
  }
  console.error(`counted ${JSON.stringify(latest)}, expected ${JSON.stringify(expected)}`);
  return miscounted.add(1);
}
