// A first check: some users and fewer codes. Each user claims once with an Idempotency-Key, and sends the same again.
//
// CODES (20), USERS (50)
import exec from 'k6/execution';
import { check } from 'k6';
import { as, awaitCounts, createCoupon, number, outcome, soldOut, toOutcome, unresolved, won } from './lib/stampede.js';
import { summary } from './lib/report.js';

const CODES = number('CODES', 20);
const USERS = number('USERS', 50);
const WINNERS = Math.min(CODES, USERS);

export const handleSummary = summary('Stampede: smoke');
export const options = {
  scenarios: { users: { executor: 'shared-iterations', vus: 10, iterations: USERS, maxDuration: '5m' } },
  thresholds: {
    won: [`count==${WINNERS}`],
    sold_out: [`count==${USERS - WINNERS}`],
    unresolved: ['count==0'],
    miscounted: ['count==0'],
    checks: ['rate==1'],
    // Detects a machine that stands still, nothing finer.
    claim_to_outcome: ['p(95)<30000'],
  },
};

export const setup = () => createCoupon(CODES);

export default function (coupon) {
  const name = `smoke-${exec.scenario.iterationInTest}`;
  const user = as('user', name);
  const path = `/v1/coupons/${coupon}/claims?wait=20`;
  const started = Date.now();
  const first = outcome(user, user.post('…/claims', path, {}, name));
  toOutcome.add(Date.now() - started);
  unresolved.add(first === null ? 1 : 0);
  won.add(first !== null && first.status === 'accepted' ? 1 : 0);
  soldOut.add(first !== null && first.reason === 'sold_out' ? 1 : 0);
  const second = outcome(user, user.post('…/claims', path, {}, name));
  check(second, {
    'the same request has the same outcome': (result) =>
      result !== null && first !== null && ['status', 'reason', 'code'].every((key) => result[key] === first[key]),
  });
}

export const teardown = (coupon) =>
  awaitCounts(coupon, { available: CODES - WINNERS, claimed: WINNERS, generated: CODES });
