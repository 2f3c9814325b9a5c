// The whole way: claim, lock for an order, redeem with its amount; every fifth gives the code back instead.
//
// USERS (100), each with a code of their own
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { as, makeCoupon, number, outcome, settled, toOutcome, unresolved, won } from './lib/stampede.js';
import { summary } from './lib/report.js';

const USERS = number('USERS', 100);
const ABANDONED = Math.ceil(USERS / 5);
const REDEEMED = USERS - ABANDONED;
const redeemed = new Counter('redeemed');
const abandoned = new Counter('abandoned');

export const handleSummary = summary('Stampede: checkout');
export const options = {
  scenarios: { users: { executor: 'shared-iterations', vus: 20, iterations: USERS, maxDuration: '10m' } },
  thresholds: {
    won: [`count==${USERS}`],
    redeemed: [`count==${REDEEMED}`],
    abandoned: [`count==${ABANDONED}`],
    unresolved: ['count==0'],
    miscounted: ['count==0'],
    checks: ['rate==1'],
    claim_to_outcome: ['p(95)<30000'],
  },
};

// Nothing lapses while this runs, however slow the machine is.
export const setup = () => makeCoupon(USERS, { hold_seconds: 3600, lock_seconds: 3600, requires_lock: true });

export default function (coupon) {
  const n = exec.scenario.iterationInTest;
  const user = as('user', `buyer-${n}`);
  const done = (reply) => {
    const said = outcome(user, reply);
    unresolved.add(said === null ? 1 : 0);
    return said !== null && said.status === 'accepted' ? said : null;
  };
  const begun = Date.now();
  const claim = done(user.post('…/claims', `/v1/coupons/${coupon}/claims?wait=20`, {}, 'claim'));
  toOutcome.add(Date.now() - begun);
  won.add(claim === null ? 0 : 1);
  if (claim === null) return;
  const code = `/v1/codes/${claim.code}`;
  if (n % 5 === 0) {
    abandoned.add(done(user.del('…/claim', `${code}/claim?wait=20`, 'back')) === null ? 0 : 1);
    return;
  }
  const order = `order-${coupon}-${n}`;
  check(done(user.post('…/lock', `${code}/lock?wait=20`, { order_id: order }, 'lock')), {
    'a code of one’s own can be locked': (said) => said !== null && said.claim.state === 'LOCKED',
  });
  const pay = { order_id: order, order_amount: '50.00', currency: 'EUR' };
  const paid = done(user.post('…/redemptions', `${code}/redemptions?wait=20`, pay, 'pay'));
  redeemed.add(paid === null ? 0 : 1);
  check(paid, { '20 % of 50.00 leave 40.00': (said) => said !== null && said.redemption.final_price === '40.00' });
}

export const teardown = (coupon) => settled(coupon, { available: ABANDONED, redeemed: REDEEMED, locked: 0, claimed: 0 });
