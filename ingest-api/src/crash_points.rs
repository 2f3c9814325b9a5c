//! Points at which a test aborts the process, behind the feature `crash-points`: `STAMPEDE_CRASH_AT="name"` or
//! `"name:n"` aborts at the n-th passing (from 1). Without the feature no code is compiled in.

pub(crate) use runtime::crash_points::{pass, pass_blocking};

runtime::crash_points! {
    pub(crate) enum Point {
        /// Kafka has acknowledged a request, and the client has no response yet.
        AfterProduceAcknowledged = "after-produce-acknowledged",
        /// A chunk of codes is committed.
        AfterLoadChunk = "after-load-chunk",
        /// A load is sealed and not announced yet.
        AfterLoadSealed = "after-load-sealed",
        /// A sealed load is about to be announced.
        BeforeAnnounce = "before-announce",
    }
}
