// The whole way of a code: claim, lock for an order, redeem with its amount. Every fifth user returns the code instead.
//
// USERS (100): users, each with a code of their own
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { as, awaitCounts, createCoupon, number, outcome, toOutcome, unresolved, won } from './lib/stampede.js';
import { summary } from './lib/report.js';

const USERS = number('USERS', 100);
const RETURNED = Math.ceil(USERS / 5);
const REDEEMED = USERS - RETURNED;
const redeemed = new Counter('redeemed');
const returned = new Counter('returned');

export const handleSummary = summary('Stampede: checkout');
export const options = {
  scenarios: { users: { executor: 'shared-iterations', vus: 20, iterations: USERS, maxDuration: '10m' } },
  thresholds: {
    won: [`count==${USERS}`],
    redeemed: [`count==${REDEEMED}`],
    returned: [`count==${RETURNED}`],
    unresolved: ['count==0'],
    miscounted: ['count==0'],
    checks: ['rate==1'],
    claim_to_outcome: ['p(95)<30000'],
  },
};

// Nothing lapses during the run, however slow the machine is.
export const setup = () => createCoupon(USERS, { hold_seconds: 3600, lock_seconds: 3600, requires_lock: true });

export default function (coupon) {
  const n = exec.scenario.iterationInTest;
  const user = as('user', `buyer-${n}`);
  const accepted = (response) => {
    const result = outcome(user, response);
    unresolved.add(result === null ? 1 : 0);
    return result !== null && result.status === 'accepted' ? result : null;
  };
  const started = Date.now();
  const claim = accepted(user.post('…/claims', `/v1/coupons/${coupon}/claims?wait=20`, {}, 'claim'));
  toOutcome.add(Date.now() - started);
  won.add(claim === null ? 0 : 1);
  if (claim === null) return;
  const code = `/v1/codes/${claim.code}`;
  if (n % 5 === 0) {
    returned.add(accepted(user.del('…/claim', `${code}/claim?wait=20`, 'return')) === null ? 0 : 1);
    return;
  }
  const order = `order-${coupon}-${n}`;
  check(accepted(user.post('…/lock', `${code}/lock?wait=20`, { order_id: order }, 'lock')), {
    'a user can lock the own code': (result) => result !== null && result.claim.state === 'LOCKED',
  });
  const payment = { order_id: order, order_amount: '50.00', currency: 'EUR' };
  const paid = accepted(user.post('…/redemptions', `${code}/redemptions?wait=20`, payment, 'pay'));
  redeemed.add(paid === null ? 0 : 1);
  check(paid, {
    '20 % off 50.00 is 40.00': (result) => result !== null && result.redemption.final_price === '40.00',
  });
}

export const teardown = (coupon) =>
  awaitCounts(coupon, { available: RETURNED, redeemed: REDEEMED, locked: 0, claimed: 0 });
