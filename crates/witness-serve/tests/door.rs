//! Who may ask what, over real sockets: every caller at every question.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Osn, PairId, SiteId};
use control::codes::{self, Code};
use control::{Problem, mutual, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use witness::wire::Question;
use witness::{Ask, AskKind, Refusal};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use witness_serve::status::{InvitationMade, SiteKnown, WitnessStatus};
use witness_serve::token::Token;
use witness_serve::{WitnessConfig, WitnessReady, run};

const WITHIN: Duration = Duration::from_secs(5);

fn block_on(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, scenario);
}

struct House {
    dir: tempfile::TempDir,
    ready: WitnessReady,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Problem>>,
}

fn config(dir: &Path) -> WitnessConfig {
    WitnessConfig { dir: dir.to_owned(), listen: "127.0.0.1:0".parse().unwrap(), advertise: None }
}

impl House {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let config = config(dir.path());
        let task = spawn_local(async move {
            let end = async move {
                let _ = stopped.await;
            };
            run(config, |ready| tell.send(ready.clone()).unwrap(), end).await
        });
        let ready = told.await.unwrap();
        Self { dir, ready, stop, task }
    }

    fn local(&self) -> WitnessClient {
        WitnessClient::local(self.dir.path(), WITHIN)
    }

    fn site_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn token(&self, name: &str) -> Token {
        let made: Result<InvitationMade, Problem> =
            self.local().document(&Question::Invite { name: name.to_owned() }).await;
        made.unwrap().token.parse().unwrap()
    }

    async fn join(&self, name: &str) -> (SiteId, WitnessClient) {
        let token = self.token(name).await;
        let membership = Membership::join(&self.site_dir(name), &token, WITHIN).await.unwrap();
        (membership.site().unwrap(), WitnessClient::of_site(&membership, WITHIN).unwrap())
    }
}

fn look(from: SiteId, pair: u8) -> Ask {
    Ask { pair: PairId([pair; 16]), from, seen_version: 0, kind: AskKind::Look }
}

async fn code_of(client: &mut WitnessClient, question: &Question) -> Option<&'static Code> {
    let answered: Result<serde_json::Value, Problem> = client.document(question).await;
    answered.err().map(|problem| problem.code())
}

async fn refusal(client: &mut WitnessClient, ask: &Ask) -> Result<Option<Refusal>, &'static Code> {
    let clock = world_real::real_world().clock;
    let answered = client.ask(ask, &*clock).await;
    answered.map(|(_, verdict)| verdict.outcome.err()).map_err(|problem| problem.code())
}

#[test]
fn each_caller_may_ask_what_is_its_own_and_nothing_else() {
    block_on(async {
        let house = House::open().await;
        let (a, mut site_a) = house.join("site-a").await;
        let (b, mut site_b) = house.join("site-b").await;
        let (_, mut other) = house.join("site-c").await;
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Ok(Some(Refusal::Unknown)));
        assert_eq!(refusal(&mut site_a, &look(b, 1)).await, Err(&codes::NOT_ENROLLED), "in another's name");
        for question in [Question::Invite { name: "x".into() }, Question::Remove { name: "site-b".into() }] {
            assert_eq!(code_of(&mut site_a, &question).await, Some(&codes::BAD_INPUT), "{question:?}");
        }
        let mut local = house.local();
        for question in [Question::Ask(look(a, 1)), Question::Enrol { site: a, secret: "vmh_1".into() }] {
            assert_eq!(code_of(&mut local, &question).await, Some(&codes::BAD_INPUT), "{question:?}");
        }
        let mut ask = Ask { kind: AskKind::Found { lease_ms: 1000 }, ..look(a, 1) };
        assert_eq!(refusal(&mut site_a, &ask).await, Ok(None));
        ask = Ask { seen_version: 1, kind: AskKind::Join { secondary: b }, ..ask };
        assert_eq!(refusal(&mut site_a, &ask).await, Ok(None));
        assert_eq!(refusal(&mut site_b, &Ask { from: b, kind: AskKind::Look, ..ask }).await, Ok(None));
        let all: WitnessStatus = local.document(&Question::Status).await.unwrap();
        assert_eq!((all.sites.len(), all.pairs.len()), (3, 1));
        let shared: WitnessStatus = site_b.document(&Question::Status).await.unwrap();
        let names: Vec<&str> = shared.sites.iter().map(|site| site.name.as_str()).collect();
        assert_eq!((names, shared.pairs.len()), (vec!["site-a", "site-b"], 1));
        let own: WitnessStatus = other.document(&Question::Status).await.unwrap();
        assert_eq!((own.sites.len(), own.pairs.len()), (1, 0), "who shares no datastore sees none");
    });
}

#[test]
fn a_stranger_gets_one_question_and_may_only_enrol() {
    block_on(async {
        let house = House::open().await;
        let (a, mut site_a) = house.join("site-a").await;
        // Removed while its connection is open.
        let gone: SiteKnown = house.local().document(&Question::Remove { name: "site-a".into() }).await.unwrap();
        assert_eq!(gone.site, None);
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Err(&codes::NOT_ENROLLED));
        assert_eq!(code_of(&mut site_a, &Question::Status).await, Some(&codes::NOT_ENROLLED));
        for secret in ["vmh_00", "x"] {
            let question = Question::Enrol { site: a, secret: secret.into() };
            assert_eq!(code_of(&mut site_a, &question).await, Some(&codes::INVITATION_REFUSED));
        }
        // A new token makes it the same site again, with another certificate.
        assert_eq!(house.join("site-a").await.0, a);
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Err(&codes::NOT_ENROLLED), "the old certificate");
    });
}

#[test]
fn a_secret_goes_to_the_right_witness_only() {
    block_on(async {
        let (house, impostor) = (House::open().await, House::open().await);
        let token = house.token("site-a").await;
        let lured = Token { address: impostor.ready.listen.to_string(), ..token.clone() };
        let dir = house.site_dir("site-a");
        let refused = Membership::join(&dir, &lured, WITHIN).await.unwrap_err();
        assert_eq!(refused.code(), &codes::WITNESS_LOST);
        assert_eq!(Membership::of(&dir).unwrap_err().code(), &codes::WITNESS_UNKNOWN);
        let seen: WitnessStatus = impostor.local().document(&Question::Status).await.unwrap();
        assert!(seen.sites.is_empty());
        Membership::join(&dir, &token, WITHIN).await.unwrap();
        assert!(Membership::join(&house.site_dir("site-b"), &token, WITHIN).await.is_err(), "used up");
    });
}

#[test]
fn rubbish_takes_nothing_down_and_nothing_up() {
    block_on(async {
        let house = House::open().await;
        let (a, mut site_a) = house.join("site-a").await;
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 4096], &[]] {
            let mut stream = TcpStream::connect(house.ready.listen).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut left = Vec::new();
            let _ = stream.read_to_end(&mut left).await;
        }
        // Within TLS, as a stranger: a length that would reserve gigabytes.
        let pem = tls::make("x", [127, 0, 0, 1].into()).unwrap();
        let config = mutual::client(house.ready.fingerprint, &pem, "vmhold-witness/1").unwrap();
        let stream = TcpStream::connect(house.ready.listen).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let mut left = Vec::new();
        let _ = stream.read_to_end(&mut left).await;
        assert!(left.is_empty());
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Ok(Some(Refusal::Unknown)));
    });
}

/// More silent connections than there are places for all of them together: a site is let in as if
/// nobody else were there.
#[test]
fn silent_connections_keep_no_site_out() {
    block_on(async {
        let house = House::open().await;
        let (a, mut site_a) = house.join("site-a").await;
        let mut silent = Vec::new();
        for _ in 0..1200 {
            silent.push(TcpStream::connect(house.ready.listen).await.unwrap());
            tokio::task::yield_now().await;
        }
        let asked = std::time::Instant::now();
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Ok(Some(Refusal::Unknown)), "it was connected before");
        let (b, mut site_b) = house.join("site-b").await;
        assert_eq!(refusal(&mut site_b, &look(b, 1)).await, Ok(Some(Refusal::Unknown)));
        assert!(asked.elapsed() < Duration::from_secs(5), "a handshake is given up after ten");
        // The oldest of them were let go.
        let mut end = [0; 1];
        assert_eq!(silent[0].read(&mut end).await.unwrap_or(0), 0);
    });
}

#[test]
fn without_a_certificate_there_is_no_handshake() {
    block_on(async {
        let house = House::open().await;
        let config = tls::client(house.ready.fingerprint);
        let stream = TcpStream::connect(house.ready.listen).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        // In TLS 1.3 the client has finished before the server refuses it.
        if let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await {
            let _ = stream.write_all(&Question::Status.frame(1)).await;
            let mut left = Vec::new();
            assert!(stream.read_to_end(&mut left).await.is_err() && left.is_empty());
        }
    });
}

#[test]
fn a_folder_has_one_witness_and_it_leaves_nothing_open_behind() {
    block_on(async {
        let house = House::open().await;
        let second = run(config(house.dir.path()), |_| panic!("it serves"), std::future::ready(())).await;
        assert_eq!(second.unwrap_err().code(), &codes::DEMO_RUNNING);
        let (a, mut site_a) = house.join("site-a").await;
        house.stop.send(()).unwrap();
        house.task.await.unwrap().unwrap();
        assert!(!house.ready.socket.exists());
        assert_eq!(refusal(&mut site_a, &look(a, 1)).await, Err(&codes::WITNESS_LOST));
        // Killed ones leave their socket: the next one takes its place.
        std::os::unix::net::UnixListener::bind(&house.ready.socket).unwrap();
        run(config(house.dir.path()), |ready| assert_eq!(ready.sites, 1), std::future::ready(())).await.unwrap();
    });
}

#[test]
fn a_lease_is_counted_from_before_the_question_left() {
    block_on(async {
        let house = House::open().await;
        let (a, mut site_a) = house.join("site-a").await;
        let clock = world_real::real_world().clock;
        let before = clock.now();
        let ask = Ask { kind: AskKind::GoAlone { in_sync_through: Osn(1) }, ..look(a, 1) };
        let (sent, verdict) = site_a.ask(&ask, &*clock).await.unwrap();
        assert!(before <= sent && sent < clock.now());
        assert_eq!(verdict.outcome, Err(Refusal::Unknown));
    });
}
