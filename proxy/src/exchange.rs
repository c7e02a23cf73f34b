//! One request or raw connection, from its arrival to its last byte: the one place that counts it and writes its log line.
//!
//! A guard records on drop, so that finished, refused, broken and cancelled exchanges all count, and count once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mesh_topology::{EndpointKey, Outcome, Route, Stage};

use crate::metrics::{Direction, Ended, Kind};
use crate::worker::Core;

/// One exchange.
pub(crate) struct Exchange {
    core: Rc<Core>,
    direction: Direction,
    kind: Kind,
    begun: Instant,
    state: State,
    flight: Option<Flight>,
    line: Option<Box<Line>>,
}

/// What the log line says beyond the counters; only made when the log is on.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Whom it was for.
    pub(crate) to: String,
    /// Who it was from (inbound).
    pub(crate) peer: String,
    /// The method.
    pub(crate) method: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Answering { status: u16 },
    Done(Ended),
}

impl Exchange {
    /// An exchange begins.
    pub(crate) fn begin(core: &Rc<Core>, direction: Direction, kind: Kind) -> Self {
        Self { core: Rc::clone(core), direction, kind, begun: Instant::now(), state: State::Waiting, flight: None, line: None }
    }

    /// Gives the log line its words; `line` runs only when the log is on.
    pub(crate) fn describe(&mut self, line: impl FnOnce() -> Line) {
        if self.core.shared.access_log {
            self.line = Some(Box::new(line()));
        }
    }

    /// The answer begins; a raw connection is up.
    pub(crate) fn answered(&mut self, status: u16, flight: Option<Flight>) {
        self.state = State::Answering { status };
        self.flight = flight;
    }

    /// It was not allowed, or named nothing.
    pub(crate) fn refused(&mut self) {
        self.state = State::Done(Ended::refused);
    }

    /// It reached nobody, or broke.
    pub(crate) fn broke(&mut self) {
        self.state = State::Done(Ended::failed);
        if let Some(flight) = &mut self.flight {
            flight.failed(Stage::Response);
        }
    }

    /// The last byte was passed on.
    pub(crate) fn finished(&mut self) {
        if let State::Answering { status } = self.state {
            self.state = State::Done(if status >= 500 { Ended::error } else { Ended::answered });
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let ended = match self.state {
            State::Done(ended) => ended,
            // hyper drops a body without asking for its end when its length said it all.
            State::Answering { status } if self.kind == Kind::http => {
                if status >= 500 {
                    Ended::error
                } else {
                    Ended::answered
                }
            }
            State::Waiting | State::Answering { .. } => Ended::cancelled,
        };
        self.core.shared.metrics.count(self.direction, self.kind, ended);
        if let Some(line) = self.line.take() {
            let status = if let State::Answering { status } = self.state { status } else { 0 };
            let Line { to, peer, method } = *line;
            let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::info!(
                target: "access", direction = ?self.direction, kind = ?self.kind, ended = ?ended, status, micros, %to, %peer, %method, "exchange"
            );
        }
    }
}

/// One attempt, as the worker's table of loads sees it.
pub(crate) struct Flight {
    core: Rc<Core>,
    endpoint: EndpointKey,
    gateway: Option<EndpointKey>,
    begun: Instant,
    latency: Option<Duration>,
    failed: Option<Stage>,
}

impl Flight {
    /// An attempt over `route` begins.
    pub(crate) fn begin(core: &Rc<Core>, route: &Route) -> Self {
        let endpoint = route.endpoint_key();
        let gateway = route.gateway_key().filter(|gateway| *gateway != endpoint);
        let begun = Instant::now();
        let mut loads = core.loads.borrow_mut();
        loads.on_started(&endpoint, begun);
        if let Some(gateway) = &gateway {
            loads.on_started(gateway, begun);
        }
        Self { core: Rc::clone(core), endpoint, gateway, begun, latency: None, failed: None }
    }

    /// There is a session: what follows is the service's own latency, without a handshake that the next request does not pay.
    pub(crate) fn sent(&mut self) {
        self.begun = Instant::now();
    }

    /// The answer begins: this long it took.
    pub(crate) fn answered(&mut self) {
        self.latency = Some(self.begun.elapsed());
    }

    /// It failed at this stage.
    pub(crate) fn failed(&mut self, stage: Stage) {
        self.failed = Some(stage);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let now = Instant::now();
        let outcome = match (self.failed, self.latency) {
            (Some(stage), _) => Outcome::Failed(stage),
            (None, Some(_)) => Outcome::Answered,
            (None, None) => Outcome::Cancelled,
        };
        let latency = self.latency.unwrap_or_else(|| now.saturating_duration_since(self.begun));
        let mut loads = self.core.loads.borrow_mut();
        loads.on_finished(&self.endpoint, latency, outcome, now);
        if let Some(gateway) = &self.gateway {
            loads.on_finished(gateway, latency, outcome, now);
        }
    }
}
