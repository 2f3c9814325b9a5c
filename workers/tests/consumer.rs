//! The consumer thread on a real Kafka: an owner receives the records of its partition once and in order, and a paused
//! or slow owner does not delay the others.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use runtime::config::{GroupProtocol, KafkaArgs};
use runtime::kafka;
use schemas::SchemaId;
use schemas::topics::REQUESTS;
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};
use workers::codec::decode::RecordDecoder;
use workers::kafka::consumer::{Assigned, Command, ConsumerThread, Settings};
use workers::ports::DriverEvent;
use workers::ports::{ConsumerCommand, Delivery, Fetched, InFlight, Ownership};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The consumer thread of a topic with two partitions that have this many records.
async fn consumer_thread(records: [usize; 2]) -> ConsumerThread {
    let stack = local_stack::testing::shared_servers().await.unwrap();
    let args = KafkaArgs { kafka_brokers: stack.endpoints().kafka, partitions: 2, replication: 1 };
    let admin: AdminClient<DefaultClientContext> = kafka::client(&args, "test").create().unwrap();
    let topic = NewTopic::new(REQUESTS, args.partitions, TopicReplication::Fixed(args.replication))
        .set("message.timestamp.type", "LogAppendTime");
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();

    let producer: ThreadedProducer<DefaultProducerContext> = kafka::producer(&args, "test").create().unwrap();
    for (partition, count) in (0..).zip(records) {
        for _ in 0..count {
            let record = BaseRecord::<(), str>::to(REQUESTS).partition(partition).payload("value");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(TIMEOUT).unwrap();

    let (assignments, _) = unbounded_channel();
    let settings = Settings {
        membership: kafka::membership(&args, "test", "test", GroupProtocol::Consumer),
        reader: kafka::reader(&args, "test-reader"),
        decoder: RecordDecoder::new(SchemaId(0), args.partitions),
        assignments,
        assigned: Arc::new(Assigned::default()),
    };
    ConsumerThread::start(settings).unwrap()
}

/// The owner of a partition.
struct Owner<'a> {
    thread: &'a ConsumerThread,
    partition: Partition,
    events: UnboundedReceiver<DriverEvent>,
    in_flight: Arc<InFlight>,
    next: i64,
}

impl<'a> Owner<'a> {
    fn of(thread: &'a ConsumerThread, partition: i32) -> Self {
        let (sender, events) = unbounded_channel();
        let in_flight = Arc::new(InFlight::default());
        let delivery = Delivery { ownership: OWNERSHIP, events: sender, in_flight: Arc::clone(&in_flight) };
        let owner = Self { thread, partition: Partition(partition), events, in_flight, next: 0 };
        owner.send(ConsumerCommand::Start { from: Offset(0), delivery });
        owner
    }

    fn send(&self, command: ConsumerCommand) {
        self.thread.commands.send(Command::Partition(self.partition, command)).unwrap();
    }

    /// Receives one delivery, if there is one.
    fn receive(&mut self) -> bool {
        match self.events.try_recv() {
            Ok(DriverEvent::Fetched(Fetched::Records(records))) => {
                self.in_flight.remove(records.len());
                for record in records {
                    assert_eq!(record.offset, Offset(self.next), "each record once, in order");
                    self.next += 1;
                }
                true
            }
            Err(TryRecvError::Empty) => false,
            other => panic!("{other:?}"),
        }
    }

    /// Receives nothing until this many records are in flight.
    async fn wait_until_in_flight(&self, in_flight: usize) {
        let filled = async {
            while self.in_flight.count() < in_flight {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, filled).await.unwrap();
    }

    async fn receive_until_quiet(&mut self) {
        let mut quiet = 0;
        while quiet < 500 {
            quiet = if self.receive() { 0 } else { quiet + 1 };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn receive_until(&mut self, next: i64) {
        tokio::time::timeout(TIMEOUT, async {
            while self.next < next {
                if !self.receive() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
        .await
        .unwrap();
    }
}

const OWNERSHIP: Ownership = Ownership(1);

#[tokio::test]
async fn an_owner_that_receives_nothing_is_paused_alone_and_gets_all_records_later() {
    let thread = consumer_thread([50_000, 20_000]).await;
    let mut busy = Owner::of(&thread, 0);
    let mut other = Owner::of(&thread, 1);
    other.receive_until(20_000).await;
    busy.wait_until_in_flight(10_000).await; // The broker may have sent the other partition's records first.
    other.receive_until_quiet().await;
    let held = busy.in_flight.count();
    assert!((10_000..15_000).contains(&held), "limited by its bound: {held}");

    // Its machine holds it back as well, and goes on; what was fetched may be fetched again.
    busy.receive_until(10_000).await;
    busy.send(ConsumerCommand::Pause(OWNERSHIP));
    busy.receive_until_quiet().await;
    assert!(busy.next < 50_000, "paused");
    let paused = busy.next;
    busy.send(ConsumerCommand::Restart(OWNERSHIP));
    busy.receive_until_quiet().await;
    assert_eq!(busy.next, paused, "it stays paused");
    busy.send(ConsumerCommand::Resume(OWNERSHIP));
    busy.receive_until(30_000).await;
    busy.send(ConsumerCommand::Restart(OWNERSHIP));
    busy.receive_until(50_000).await;
    thread.stop();
}
