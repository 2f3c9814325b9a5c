use super::*;
use tokio::time::timeout;

/// Longer than every step here takes.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a test waits for data that must not arrive.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// An echo server, a proxy in front of it, and the number of bytes that the server has received.
struct Link {
    proxy: Proxy,
    address: SocketAddr,
    received: watch::Receiver<usize>,
}

async fn link() -> Link {
    let any = ("127.0.0.1", 0);
    let (server, listener) = (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
    let (server_address, address) = (server.local_addr().unwrap(), listener.local_addr().unwrap());
    let (count, received) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = server.accept().await.unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                let mut chunk = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut chunk).await {
                    count.send_modify(|received| *received += length);
                    if stream.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = Proxy::new();
    tokio::spawn(proxy.clone().serve(listener, server_address));
    Link { proxy, address, received }
}

impl Link {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn server_has_received(&self, length: usize) {
        let mut received = self.received.clone();
        timeout(TIMEOUT, received.wait_for(|received| *received == length)).await.unwrap().unwrap();
    }
}

async fn echo(stream: &mut TcpStream, word: &[u8]) -> io::Result<()> {
    stream.write_all(word).await?;
    let mut response = vec![0; word.len()];
    timeout(TIMEOUT, stream.read_exact(&mut response)).await??;
    assert_eq!(response, word);
    Ok(())
}

#[tokio::test]
async fn a_cut_ends_open_connections_and_no_later_ones() {
    let link = link().await;
    let mut before = link.connect().await;
    echo(&mut before, b"one").await.unwrap();
    assert_eq!(link.proxy.cut(), 1);
    assert!(echo(&mut before, b"two").await.is_err());
    let mut after = link.connect().await;
    echo(&mut after, b"three").await.unwrap();
    echo(&mut after, b"four").await.unwrap();
}

#[tokio::test]
async fn refusing_ends_new_connections_and_keeps_open_ones() {
    let link = link().await;
    let mut before = link.connect().await;
    echo(&mut before, b"one").await.unwrap();
    link.proxy.refuse(true);
    if let Ok(mut refused) = TcpStream::connect(link.address).await {
        assert!(echo(&mut refused, b"two").await.is_err());
    }
    echo(&mut before, b"three").await.unwrap();
    link.proxy.refuse(false);
    echo(&mut link.connect().await, b"four").await.unwrap();
}

#[tokio::test]
async fn a_dropped_response_never_arrives_though_the_server_received_the_request() {
    let link = link().await;
    let mut client = link.connect().await;
    echo(&mut client, b"one").await.unwrap();
    link.proxy.drop_responses(true);
    client.write_all(b"two").await.unwrap();
    link.server_has_received(6).await;
    let mut response = [0; 3];
    assert!(
        timeout(QUIET_TIME, client.read(&mut response)).await.is_err(),
        "no data arrives, and the connection stays open"
    );
    link.proxy.drop_responses(false);
    assert!(timeout(TIMEOUT, client.read_exact(&mut response)).await.unwrap().is_err());
    assert_eq!(link.proxy.dropped_bytes(), 3);
    echo(&mut link.connect().await, b"three").await.unwrap();
}

#[tokio::test]
async fn delayed_responses_arrive_late_in_order_and_all_with_the_same_delay() {
    let link = link().await;
    let mut client = link.connect().await;
    let delay = Duration::from_millis(200);
    link.proxy.delay(delay);
    let begun = Instant::now();
    for word in [b"one", b"two", b"six"] {
        client.write_all(word).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let mut responses = [0; 9];
    timeout(TIMEOUT, client.read_exact(&mut responses)).await.unwrap().unwrap();
    assert_eq!(&responses, b"onetwosix");
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn stalled_data_arrives_after_the_stall() {
    let link = link().await;
    let mut client = link.connect().await;
    echo(&mut client, b"one").await.unwrap();
    link.proxy.stall(true);
    client.write_all(b"two").await.unwrap();
    let mut response = [0; 3];
    assert!(timeout(QUIET_TIME, client.read(&mut response)).await.is_err());
    assert_eq!(*link.received.borrow(), 3, "it was not forwarded");
    link.proxy.clear_faults();
    timeout(TIMEOUT, client.read_exact(&mut response)).await.unwrap().unwrap();
    assert_eq!(&response, b"two");
}

#[tokio::test]
async fn a_stalled_connection_can_be_cut() {
    let link = link().await;
    let mut client = link.connect().await;
    echo(&mut client, b"one").await.unwrap();
    link.proxy.stall(true);
    client.write_all(b"two").await.unwrap();
    link.proxy.cut();
    let mut response = [0; 3];
    assert!(timeout(TIMEOUT, client.read_exact(&mut response)).await.unwrap().is_err());
}

#[tokio::test]
async fn a_black_hole_loses_what_is_sent_in_its_direction_and_resets_no_connection() {
    let link = link().await;
    let mut client = link.connect().await;
    echo(&mut client, b"one").await.unwrap();
    link.proxy.black_hole(false, true);
    client.write_all(b"two").await.unwrap();
    link.server_has_received(6).await;
    let mut response = [0; 3];
    assert!(timeout(QUIET_TIME, client.read_exact(&mut response)).await.is_err(), "neither data nor a reset");
    link.proxy.black_hole(true, false);
    timeout(TIMEOUT, client.read_exact(&mut response)).await.unwrap().unwrap();
    assert_eq!(&response, b"two", "it is sent again");
    client.write_all(b"four").await.unwrap();
    tokio::time::sleep(QUIET_TIME).await;
    assert_eq!(*link.received.borrow(), 6);
    drop(client);
    tokio::time::sleep(QUIET_TIME).await;
    assert_eq!(link.proxy.connections(), 1, "the server does not notice that the client has gone");
    link.proxy.clear_faults();
    link.server_has_received(10).await;
}
