//! How an actor can fail, for the tests and the simulation: no part of a production build.

use actix::{Actor, ActorContext, AsyncContext, Context, Message, WrapFuture};
use std::time::Duration;

/// Makes a supervised actor fail; taken by whoever is answered for by `answers_ping!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Crash {
    /// Its handler panics.
    PanicNow,
    /// A future that it spawned panics.
    PanicLater,
    /// It stops itself.
    Stop,
    /// It reads its mailbox no more.
    Hang,
}

impl Crash {
    /// Lets it happen.
    pub fn happen<A: Actor<Context = Context<A>>>(self, actor: &A, ctx: &mut Context<A>) {
        match self {
            Self::PanicNow => panic!("a handler gave up"),
            Self::PanicLater => {
                let future = async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    panic!("a future gave up");
                };
                ctx.spawn(future.into_actor(actor));
            }
            Self::Stop => ctx.stop(),
            Self::Hang => ctx.wait(std::future::pending().into_actor(actor)),
        }
    }
}
