// The rush: users arrive at a constant rate, whether those before have an outcome or not (open model). Each claims one
// code of one coupon, while others read the coupon.
//
// CODES (500), RATE of claims per second (200), SECONDS (10), READS of the coupon per second (50)
import exec from 'k6/execution';
import { as, awaitCounts, createCoupon, number, outcome, soldOut, toOutcome, unresolved, won } from './lib/stampede.js';
import { summary } from './lib/report.js';

const CODES = number('CODES', 500);
const RATE = number('RATE', 200);
const SECONDS = number('SECONDS', 10);
const READS = number('READS', 50);
const WINNERS = Math.min(CODES, RATE * SECONDS);

const open = (rate, run, vus) => ({
  executor: 'constant-arrival-rate',
  exec: run,
  rate,
  timeUnit: '1s',
  duration: `${SECONDS}s`,
  preAllocatedVUs: vus,
  maxVUs: 20 * vus,
  gracefulStop: '90s',
});

export const handleSummary = summary('Stampede: flash sale');
export const options = {
  scenarios: { reads: open(READS, 'read', 20), rush: open(RATE, 'claim', 200) },
  thresholds: {
    won: [`count==${WINNERS}`],
    unresolved: ['count==0'],
    miscounted: ['count==0'],
    // More than zero: this generator was the bottleneck, not Stampede.
    dropped_iterations: ['count==0'],
    http_req_failed: ['rate==0'],
    // Loose: the generator and all servers share one machine.
    claim_to_outcome: ['p(95)<30000'],
  },
};

export const setup = () => createCoupon(CODES);

export function read(coupon) {
  as('user', 'reader').get('/v1/coupons/{id}', `/v1/coupons/${coupon}`);
}

export function claim(coupon) {
  const user = as('user', `rush-${exec.scenario.iterationInTest}`);
  const path = `/v1/coupons/${coupon}/claims?wait=20`;
  const started = Date.now();
  // No Idempotency-Key, so that the sold-out gate may respond. After a lost response the claim is sent again as a new
  // request; if the first one was accepted, the second is rejected with user_limit_reached.
  const first = user.tryPost('…/claims', path, {});
  const isFinal = first.status === 200 || first.status === 202 || first.status === 409;
  const response = isFinal ? first : user.post('…/claims', path, {});
  const result =
    response.status === 409 ? { status: 'rejected', reason: 'sold_out' } : outcome(user, response);
  toOutcome.add(Date.now() - started);
  const hasCode = result !== null && result.reason === 'user_limit_reached' && !isFinal
    && user.get('/v1/users/me/codes', '/v1/users/me/codes').json().items.length === 1;
  const winner = result !== null && (result.status === 'accepted' || hasCode);
  const loser = result !== null && result.reason === 'sold_out';
  won.add(winner ? 1 : 0);
  soldOut.add(loser ? 1 : 0);
  unresolved.add(winner || loser ? 0 : 1);
}

export const teardown = (coupon) =>
  awaitCounts(coupon, { available: CODES - WINNERS, claimed: WINNERS, generated: CODES });
