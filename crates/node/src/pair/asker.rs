//! Questions to the witness, one after the other. One that gets no answer is not asked again by
//! itself: the mirror asks anew, by what it knows then.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base::port::{Clock, World};
use control::Problem;
use mirror::Input;
use replica::Replica;
use tokio::sync::mpsc;
use witness::Ask;
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;

/// The mirror's end.
#[derive(Clone)]
pub(super) struct Asker {
    questions: mpsc::UnboundedSender<(u64, Ask)>,
    trouble: Rc<RefCell<Option<String>>>,
}

/// The witness's end.
pub(super) struct Questions {
    questions: mpsc::UnboundedReceiver<(u64, Ask)>,
    trouble: Rc<RefCell<Option<String>>>,
}

impl Asker {
    /// Both ends. The mirror has one question under way at a time, so the queue is short.
    pub fn new() -> (Asker, Questions) {
        let (sender, questions) = mpsc::unbounded_channel();
        let trouble: Rc<RefCell<Option<String>>> = Rc::new(RefCell::new(Some("it was not asked yet".to_owned())));
        (Asker { questions: sender, trouble: trouble.clone() }, Questions { questions, trouble })
    }

    /// Asks.
    pub fn ask(&self, number: u64, ask: Ask) {
        // Nobody listens when the process ends.
        let _ = self.questions.send((number, ask));
    }

    /// Why the witness does not answer, if it does not.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

impl Questions {
    /// Carries them to the witness and tells the answers to the site, for ever.
    ///
    /// # Errors
    /// When the site's certificate is unusable.
    pub fn answer(
        self,
        membership: &Membership,
        within: Duration,
        (world, replica): (&World, Replica),
    ) -> Result<(), Problem> {
        let client = WitnessClient::of_site(membership, within)?;
        world.spawn.spawn("asker", Box::pin(self.carry(client, (world.clock.clone(), replica))));
        Ok(())
    }

    async fn carry(mut self, mut client: WitnessClient, (clock, replica): (Rc<dyn Clock>, Replica)) {
        while let Some(mut question) = self.questions.recv().await {
            // Only the newest is still waited for.
            while let Ok(newer) = self.questions.try_recv() {
                question = newer;
            }
            let (number, ask) = question;
            match client.ask(&ask, &*clock).await {
                Ok((_, verdict)) => {
                    self.is_well(&client);
                    replica.tell(Input::Answered(number, verdict));
                }
                Err(problem) => self.is_lost(&problem),
            }
        }
    }

    fn is_well(&self, client: &WitnessClient) {
        if self.trouble.take().is_some() {
            tracing::info!(code = "VH4021", address = client.address(), "the witness answers");
        }
    }

    fn is_lost(&self, problem: &Problem) {
        let why = problem.reason().unwrap_or_else(|| problem.what()).to_owned();
        if self.trouble.replace(Some(why.clone())).is_none() {
            tracing::warn!(code = %problem.code(), why, "{}: no site can take over by itself", problem.what());
        }
    }
}
