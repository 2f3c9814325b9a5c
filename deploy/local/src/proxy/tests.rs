use super::*;
use tokio::time::timeout;

/// Longer than anything here takes; only what must not come is waited for in vain, and shortly.
const PATIENCE: Duration = Duration::from_secs(60);
const A_MOMENT: Duration = Duration::from_millis(100);

/// A server that repeats what it is told, a proxy in front of it, and what the server has heard.
struct Line {
    proxy: Proxy,
    address: SocketAddr,
    heard: watch::Receiver<usize>,
}

async fn line() -> Line {
    let any = ("127.0.0.1", 0);
    let (server, front) = (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
    let (server_address, address) = (server.local_addr().unwrap(), front.local_addr().unwrap());
    let (hears, heard) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = server.accept().await.unwrap();
            let hears = hears.clone();
            tokio::spawn(async move {
                let mut chunk = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut chunk).await {
                    hears.send_modify(|heard| *heard += length);
                    if stream.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = Proxy::new();
    tokio::spawn(proxy.clone().serve(front, server_address));
    Line { proxy, address, heard }
}

impl Line {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn has_heard(&self, length: usize) {
        let mut heard = self.heard.clone();
        timeout(PATIENCE, heard.wait_for(|heard| *heard == length)).await.unwrap().unwrap();
    }
}

async fn echo(stream: &mut TcpStream, word: &[u8]) -> io::Result<()> {
    stream.write_all(word).await?;
    let mut answer = vec![0; word.len()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
    assert_eq!(answer, word);
    Ok(())
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_nothing_that_comes_after() {
    let line = line().await;
    let mut before = line.connect().await;
    echo(&mut before, b"one").await.unwrap();
    assert_eq!(line.proxy.cut(), 1);
    assert!(echo(&mut before, b"two").await.is_err());
    let mut after = line.connect().await;
    echo(&mut after, b"three").await.unwrap();
    echo(&mut after, b"four").await.unwrap();
}

#[tokio::test]
async fn who_is_refused_gets_nothing_and_who_is_there_stays() {
    let line = line().await;
    let mut before = line.connect().await;
    echo(&mut before, b"one").await.unwrap();
    line.proxy.refuse(true);
    if let Ok(mut refused) = TcpStream::connect(line.address).await {
        assert!(echo(&mut refused, b"two").await.is_err());
    }
    echo(&mut before, b"three").await.unwrap();
    line.proxy.refuse(false);
    echo(&mut line.connect().await, b"four").await.unwrap();
}

#[tokio::test]
async fn a_swallowed_answer_never_comes_though_its_request_was_heard() {
    let line = line().await;
    let mut client = line.connect().await;
    echo(&mut client, b"one").await.unwrap();
    line.proxy.swallow(true);
    client.write_all(b"two").await.unwrap();
    line.has_heard(6).await;
    let mut answer = [0; 3];
    assert!(timeout(A_MOMENT, client.read(&mut answer)).await.is_err(), "nothing comes, and nothing ends");
    line.proxy.swallow(false);
    assert!(timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().is_err());
    assert_eq!(line.proxy.swallowed(), 3);
    echo(&mut line.connect().await, b"three").await.unwrap();
}

#[tokio::test]
async fn a_delayed_answer_comes_late_and_in_order_and_not_slower_the_more_there_are() {
    let line = line().await;
    let mut client = line.connect().await;
    let delay = Duration::from_millis(200);
    line.proxy.delay(delay);
    let begun = Instant::now();
    for word in [b"one", b"two", b"six"] {
        client.write_all(word).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let mut answers = [0; 9];
    timeout(PATIENCE, client.read_exact(&mut answers)).await.unwrap().unwrap();
    assert_eq!(&answers, b"onetwosix");
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn what_is_halted_arrives_once_it_may() {
    let line = line().await;
    let mut client = line.connect().await;
    echo(&mut client, b"one").await.unwrap();
    line.proxy.halt(true);
    client.write_all(b"two").await.unwrap();
    let mut answer = [0; 3];
    assert!(timeout(A_MOMENT, client.read(&mut answer)).await.is_err());
    assert_eq!(*line.heard.borrow(), 3, "it was not passed on");
    line.proxy.heal();
    timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"two");
}

#[tokio::test]
async fn a_halted_connection_can_be_cut() {
    let line = line().await;
    let mut client = line.connect().await;
    echo(&mut client, b"one").await.unwrap();
    line.proxy.halt(true);
    client.write_all(b"two").await.unwrap();
    line.proxy.cut();
    let mut answer = [0; 3];
    assert!(timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().is_err());
}
