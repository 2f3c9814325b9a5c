//! The partition of a key: murmur2 as in the Java client, modulo the recorded number of partitions. Producers set the
//! partition themselves, so that partitions that are added later move no coupon. The partition of a response is that of
//! its request.

/// `org.apache.kafka.common.utils.Utils.murmur2`, seed `0x9747b28c`.
#[must_use]
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // A length is an int in Java; keys are far shorter than 2 GiB, and Java would wrap as well.
    let mut hash = SEED ^ (key.len() as u32);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of a key, as chosen by the default partitioner of the Java client.
///
/// `partitions` is the number recorded at the first start; anything below 1 counts as 1.
#[must_use]
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// The partition of `coupon.responses`, one of `partitions`, for the responses of a partition of `coupon.requests`.
///
/// It does not depend on the user: the responses of a batch of decisions are one batch for the broker. By user they
/// would be one batch per partition.
#[must_use]
pub fn response_partition(requests: i32, partitions: i32) -> i32 {
    requests.rem_euclid(partitions.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_returns_the_values_of_kafkas_own_tests() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2; the empty key from librdkafka's rdmurmur2.c.
        let expected: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_always_within_the_recorded_number() {
        for n in 0..2_000 {
            let key = format!("coupon-{n}");
            for partitions in [1, 2, 8, 50] {
                let partition = partition_for(key.as_bytes(), partitions);
                assert!((0..partitions).contains(&partition));
            }
        }
        assert_eq!(partition_for(b"any", 0), 0);
    }

    #[test]
    fn responses_have_a_valid_partition_for_every_recorded_number() {
        assert_eq!([0, 7, 8, 12].map(|requests| response_partition(requests, 8)), [0, 7, 0, 4]);
        assert_eq!(response_partition(3, 0), 0);
        assert_eq!(response_partition(-1, 8), 7);
    }

    #[test]
    fn keys_spread_evenly_over_the_partitions() {
        let mut counts = [0_u32; 8];
        for n in 0..8_000 {
            counts[partition_for(format!("coupon-{n}").as_bytes(), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
