//! containerd's API by containerd's own client: against Berth's socket and against containerd's.

use std::time::{Duration, Instant};

use berth_containerd_api::containerd::events::ContainerCreate;
use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container::Runtime as ContainerRuntime,
};
use berth_containerd_api::containerd::services::events::v1::SubscribeRequest;
use berth_containerd_api::containerd::services::events::v1::events_client::EventsClient;
use berth_containerd_api::containerd::types::Envelope;
use prost::Message as _;
use prost_types::Any;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::engine::{Engine, quiet};
use crate::measure::{Candidate as _, in_turns, timed};
use crate::report::Row;

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// containerd's own client against both daemons.
pub fn by_ctr(engines: &[&Engine], runs: usize) -> Vec<Row> {
    for engine in engines {
        engine.meter().enter();
        let words = engine.ctr_run("target", &["-d"], &["sleep", "100000"]);
        assert!(quiet(&mut engine.ctr(&words)), "{} starts the target", engine.name);
    }
    let ran = in_turns(engines, runs, |engine, round| {
        timed(&mut engine.ctr(&engine.ctr_run(&format!("c{round}"), &["--rm"], &["true"])))
    });
    let executed = in_turns(engines, runs, |engine, round| {
        let id = format!("e{round}");
        timed(&mut engine.ctr(&words(["task", "exec", "--exec-id", &id, "target", "true"])))
    });
    let mut subscribers: Vec<Subscriber> = engines.iter().map(|engine| Subscriber::start(engine)).collect();
    let told = in_turns(engines, runs, |engine, round| {
        let subscriber = subscribers.iter_mut().find(|s| s.engine == engine.name).expect("one for each");
        subscriber.create_to_event(&format!("t{round}"))
    });
    for engine in engines {
        assert!(quiet(&mut engine.ctr(&words(["task", "rm", "-f", "target"]))));
        assert!(quiet(&mut engine.ctr(&words(["containers", "rm", "target"]))));
    }
    vec![
        Row::wall("ctr run --rm", &ran),
        Row::cpu("ctr run --rm", &ran),
        Row::wall("ctr task exec", &executed),
        Row::cpu("ctr task exec", &executed),
        Row::wall("Containers.Create, until a subscriber has the event", &told),
    ]
}

/// A gRPC client on one daemon that subscribes to events and creates containers: what is measured is the daemons' part, where a command
/// line's own start is the most of it.
struct Subscriber {
    engine: &'static str,
    runtime: tokio::runtime::Runtime,
    containers: ContainersClient<Channel>,
    events: Streaming<Envelope>,
}

impl Subscriber {
    fn start(engine: &Engine) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (containers, events) = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", engine.containerd_socket())).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let mut containers = ContainersClient::new(channel.clone());
            let filters = vec![r#"topic=="/containers/create""#.to_owned()];
            let subscribed =
                tokio::spawn(async move { EventsClient::new(channel).subscribe(SubscribeRequest { filters }).await });
            // containerd answers with the first event only.
            while !subscribed.is_finished() {
                create(&mut containers, "first").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut events = subscribed.await.unwrap().unwrap().into_inner();
            create(&mut containers, "last").await;
            while event_id(&mut events).await != "last" {}
            (containers, events)
        });
        Self { engine: engine.name, runtime, containers, events }
    }

    /// Milliseconds from the call to the event that tells of it.
    fn create_to_event(&mut self, id: &str) -> f64 {
        self.runtime.block_on(async {
            let begin = Instant::now();
            let call = self.containers.create(in_namespace(request(id)));
            let (created, told) = tokio::join!(call, event_id(&mut self.events));
            let taken = begin.elapsed().as_secs_f64() * 1000.0;
            created.unwrap();
            assert_eq!(told, id);
            self.containers.delete(in_namespace(DeleteContainerRequest { id: id.to_owned() })).await.unwrap();
            taken
        })
    }
}

fn request(id: &str) -> CreateContainerRequest {
    let runtime = ContainerRuntime { name: "io.containerd.runc.v2".to_owned(), options: None };
    let type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    let spec = Any { type_url, value: b"{}".to_vec() };
    let container = Container { id: id.to_owned(), runtime: Some(runtime), spec: Some(spec), ..Container::default() };
    CreateContainerRequest { container: Some(container) }
}

/// And removes it.
async fn create(containers: &mut ContainersClient<Channel>, id: &str) {
    containers.create(in_namespace(request(id))).await.unwrap();
    containers.delete(in_namespace(DeleteContainerRequest { id: id.to_owned() })).await.unwrap();
}

async fn event_id(events: &mut Streaming<Envelope>) -> String {
    let event = events.message().await.unwrap().expect("the stream goes on").event.expect("an event");
    ContainerCreate::decode(event.value.as_slice()).unwrap().id
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "default".parse().expect("plain"));
    request
}
