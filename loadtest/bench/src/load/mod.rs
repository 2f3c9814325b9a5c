//! What produces load: backlogs, closed-loop clients, the HTTP generator; and what observes the responses.

pub mod backlog;
pub mod closed_loop;
pub mod contents;
pub mod http_load;
pub mod latencies;
pub mod worker_run;
