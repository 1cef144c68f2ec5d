//! Inter-pod affinity, anti-affinity and topology spread become counters by domain.
//!
//! Rules: interpodaffinity/filtering.go and podtopologyspread/{common,filtering}.go. What pods of one
//! template say is read once, and whom a selector means is found once, by a label that it asks for where it
//! asks for one.

use super::counters::Counted;
use super::packer::{KEPT, Packer, Spread};
use crate::cluster::index32;
use crate::cluster::{AffinityTerm, LabelSelector, Pod, PodSpec, Snapshot, SpreadConstraint};
use crate::effort::{Effort, TooMuch};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// A key and a value of a label.
type Label<'a> = (&'a str, &'a str);

/// A spread constraint, and the pods that it counts.
type Spreading = (Spread, Rc<Vec<u32>>);
/// By class and topology key, which of other pods an anti-affinity term keeps apart.
type Against<'a> = BTreeMap<(usize, &'a Arc<str>), Vec<usize>>;

/// Pods of one namespace with one spec say the same.
type Saying<'a> = (&'a str, *const PodSpec);

fn saying(pod: &Pod) -> Saying<'_> {
    (&pod.namespace, Arc::as_ptr(&pod.spec))
}

/// Which pods are meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Question<'a> {
    /// Only those of this namespace. `None`: those of the namespaces below.
    own: Option<&'a str>,
    namespaces: &'a [Arc<str>],
    namespace_selector: Option<&'a LabelSelector>,
    selector: &'a LabelSelector,
    /// The answer where it depends on labels of a namespace that are not known.
    unknown: bool,
}

impl<'a> Question<'a> {
    /// Whom the term of a pod means; `None`: nobody.
    fn of(term: &'a AffinityTerm, owner: &'a Pod, unknown: bool) -> Option<Self> {
        let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
        Some(Self {
            own: own.then_some(&*owner.namespace),
            namespaces: &term.namespaces,
            namespace_selector: term.namespace_selector.as_ref(),
            selector: term.selector.as_ref()?,
            unknown,
        })
    }

    /// Whom a constraint of a pod counts; `None`: nobody.
    fn spread(constraint: &'a SpreadConstraint, owner: &'a Pod) -> Option<Self> {
        Some(Self {
            own: Some(&owner.namespace),
            namespaces: &[],
            namespace_selector: None,
            selector: constraint.selector.as_ref()?,
            unknown: true,
        })
    }

    fn weight(&self) -> usize {
        self.selector.weight()
            + self.namespaces.len() / 8
            + self.namespace_selector.map_or(0, LabelSelector::weight)
    }

    fn means(&self, pod: &Pod, snapshot: &Snapshot) -> bool {
        let by_label = |selector: &LabelSelector| {
            selector.requirements.is_empty()
                || snapshot
                    .namespace_labels(&pod.namespace)
                    .map_or(self.unknown, |labels| selector.matches(labels))
        };
        let namespace = match self.own {
            Some(own) => *own == *pod.namespace,
            None => self.namespaces.contains(&pod.namespace) || self.namespace_selector.is_some_and(by_label),
        };
        namespace && self.selector.matches(&pod.labels)
    }
}

/// Finds whom questions mean, each once.
struct Meaning<'a> {
    snapshot: &'a Snapshot,
    effort: &'a Effort,
    /// One pod of each group of the cluster, then one of each class.
    pods: Vec<&'a Pod>,
    groups: usize,
    /// Indexes into `pods`, by the labels that questions ask for.
    by_label: HashMap<Label<'a>, Vec<u32>>,
    everybody: Vec<u32>,
    known: HashMap<Question<'a>, Rc<Vec<u32>>>,
}

impl<'a> Meaning<'a> {
    fn new(snapshot: &'a Snapshot, classes: &[&'a Pod], effort: &'a Effort) -> Result<Self, TooMuch> {
        effort.spend(snapshot.groups().len() + classes.len())?;
        let groups = snapshot.groups().iter().map(|group| &*snapshot.pods()[group.members[0] as usize]);
        let pods: Vec<&Pod> = groups.chain(classes.iter().copied()).collect();
        let mut meaning = Self {
            snapshot,
            effort,
            groups: snapshot.groups().len(),
            everybody: (0..index32(pods.len())).collect(),
            pods,
            by_label: HashMap::new(),
            known: HashMap::new(),
        };
        meaning.index(classes)?;
        Ok(meaning)
    }

    /// Finds the pods that have a label which the rules of these pods ask for.
    fn index(&mut self, classes: &[&'a Pod]) -> Result<(), TooMuch> {
        let mut wanted: HashSet<Label<'a>> = HashSet::new();
        let mut read: HashSet<*const PodSpec> = HashSet::new();
        for pod in classes {
            let spec = &*pod.spec;
            if !read.insert(spec) {
                continue;
            }
            let terms = spec.pod_affinity.iter().chain(&spec.pod_anti_affinity);
            let terms = terms.map(|term| &term.selector);
            let spread = spec.topology_spread.iter().map(|constraint| &constraint.selector);
            for selector in terms.chain(spread).flatten() {
                self.effort.spend(selector.weight())?;
                wanted.extend(selector.required_label());
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        for (index, pod) in self.pods.iter().enumerate() {
            self.effort.spend(2 * pod.labels.len())?;
            for label in pod.labels.iter().filter(|label| wanted.contains(label)) {
                self.by_label.entry(label).or_default().push(index32(index));
            }
        }
        Ok(())
    }

    /// Indexes of the pods that are meant, in order.
    fn of(&mut self, question: Question<'a>) -> Result<Rc<Vec<u32>>, TooMuch> {
        self.effort.spend(4 * question.weight())?;
        if let Some(known) = self.known.get(&question) {
            return Ok(known.clone());
        }
        let candidates = match question.selector.required_label() {
            Some(label) => self.by_label.get(&label).map_or(&[][..], Vec::as_slice),
            None => &self.everybody,
        };
        let left = self.among(&question, candidates)?;
        self.effort.spend(KEPT / 2 * left.len())?;
        let found = Rc::new(left);
        self.known.insert(question, found.clone());
        Ok(found)
    }

    /// Those of `asked` that are meant.
    fn among(&self, question: &Question<'a>, candidates: &[u32]) -> Result<Vec<u32>, TooMuch> {
        self.effort.spend(candidates.len().saturating_mul(question.weight()))?;
        let meant = |index: &&u32| question.means(self.pods[**index as usize], self.snapshot);
        Ok(candidates.iter().filter(meant).copied().collect())
    }

    /// The pods that meet all affinity terms of this one.
    fn near(&mut self, pod: &'a Pod) -> Result<Vec<u32>, TooMuch> {
        let terms = pod.spec.pod_affinity.iter().map(|term| Question::of(term, pod, false));
        let Some(mut questions) = terms.collect::<Option<Vec<_>>>() else { return Ok(Vec::new()) };
        let few = questions.iter().position(|question| question.selector.required_label().is_some());
        let first = questions.swap_remove(few.unwrap_or_default());
        let mut left = self.of(first)?.to_vec();
        for question in &questions {
            self.effort.spend(1)?;
            left = self.among(question, &left)?;
        }
        Ok(left)
    }

    /// Whether the class is among the pods meant.
    fn has_class(&self, meant: &[u32], class: usize) -> bool {
        meant.binary_search(&index32(self.groups + class)).is_ok()
    }
}

/// The counters of what pods of one namespace with one spec say.
struct Said {
    /// With the pods that each counts.
    spread: Vec<(Spread, Rc<Vec<u32>>)>,
    near: Vec<usize>,
    /// The pods that meet all affinity terms.
    near_pods: Vec<u32>,
    apart: Vec<usize>,
}

/// Reads what all pods say, and fills the counters.
struct Compiler<'p, 'a> {
    packer: &'p mut Packer<'a>,
    meaning: Meaning<'a>,
    leaving: &'p HashSet<u32>,
    /// Counters by what they count and over which topology.
    apart: HashMap<(Question<'a>, usize), usize>,
}

impl<'a> Packer<'a> {
    /// Enters the rules of all pods.
    pub(super) fn compile_rules(&mut self, leaving: &HashSet<u32>) -> Result<(), TooMuch> {
        let pods: Vec<&'a Pod> = self.classes.iter().map(|class| class.pod).collect();
        let meaning = Meaning::new(self.snapshot, &pods, self.effort)?;
        let mut compiler = Compiler { packer: self, meaning, leaving, apart: HashMap::new() };
        let mut known: HashMap<Saying<'a>, Said> = HashMap::new();
        for (class, pod) in pods.iter().enumerate() {
            let said = match known.entry(saying(pod)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(free) => free.insert(compiler.read(pod)?),
            };
            compiler.enter(class, said)?;
        }
        compiler.against(&pods)?;
        for class in &mut self.classes {
            class.raises.sort_unstable();
        }
        for counter in &mut self.counters {
            self.effort.spend(counter.domains.len())?;
            counter.find_least();
        }
        let near: HashSet<usize> = self.classes.iter().flat_map(|class| class.near.iter().copied()).collect();
        self.attracts = (0..self.counters.len()).map(|counter| near.contains(&counter)).collect();
        Ok(())
    }
}

impl<'a> Compiler<'_, 'a> {
    fn read(&mut self, pod: &'a Pod) -> Result<Said, TooMuch> {
        let spread = self.read_spread(pod)?;
        let mut said = Said { spread, near: Vec::new(), near_pods: Vec::new(), apart: Vec::new() };
        if !pod.spec.pod_affinity.is_empty() {
            said.near_pods = self.meaning.near(pod)?;
            let mut over = BTreeSet::new();
            for term in &pod.spec.pod_affinity {
                let topology = self.packer.topology(&term.topology_key)?;
                if over.insert(topology) {
                    let counter = self.packer.counter(topology, None)?;
                    said.near.push(counter);
                    let meant = std::mem::take(&mut said.near_pods);
                    self.count(counter, Counted::Near, &meant)?;
                    said.near_pods = meant;
                }
            }
        }
        for term in &pod.spec.pod_anti_affinity {
            let topology = self.packer.topology(&term.topology_key)?;
            let question = Question::of(term, pod, true);
            self.packer.effort.spend(4 * term.weight())?;
            let known = question.and_then(|question| self.apart.get(&(question, topology)).copied());
            if let Some(counter) = known {
                said.apart.push(counter);
                continue;
            }
            let counter = self.packer.counter(topology, None)?;
            said.apart.push(counter);
            if let Some(question) = question {
                self.apart.insert((question, topology), counter);
                let meant = self.meaning.of(question)?;
                self.count(counter, Counted::Apart, &meant)?;
            }
        }
        said.apart.sort_unstable();
        said.apart.dedup();
        Ok(said)
    }

    fn read_spread(&mut self, pod: &'a Pod) -> Result<Vec<Spreading>, TooMuch> {
        let (spec, effort) = (&*pod.spec, self.packer.effort);
        let constraints = &spec.topology_spread;
        if constraints.is_empty() {
            return Ok(Vec::new());
        }
        let selects = constraints.iter().any(|constraint| constraint.honour_node_affinity);
        let tolerates = constraints.iter().any(|constraint| constraint.honour_taints);
        let weight = spec.node_weight();
        // By node: whether it has all labels, is selected, and has no taint in the way.
        let mut nodes = Vec::with_capacity(self.packer.nodes.len());
        for node in &self.packer.nodes {
            effort.spend(1)?;
            let mut labelled = true;
            for constraint in constraints.iter() {
                effort.spend(1)?;
                labelled = node.labels.get(&constraint.topology_key).is_some();
                if !labelled {
                    break;
                }
            }
            effort.spend(usize::from(labelled) * (weight + spec.tolerations.len() * node.taints.len()))?;
            let selected = labelled && selects && spec.selects(node);
            nodes.push((labelled, selected, labelled && tolerates && spec.untolerated(node).is_none()));
        }
        let mut spread = Vec::new();
        for constraint in constraints {
            effort.spend(nodes.len())?;
            let eligible = nodes.iter().map(|(labelled, selected, tolerated)| {
                *labelled
                    && (!constraint.honour_node_affinity || *selected)
                    && (!constraint.honour_taints || *tolerated)
            });
            let eligible = eligible.collect();
            let topology = self.packer.topology(&constraint.topology_key)?;
            let counter = self.packer.counter(topology, Some(eligible))?;
            let meant = match Question::spread(constraint, pod) {
                Some(question) => self.meaning.of(question)?,
                None => Rc::default(),
            };
            self.count(counter, Counted::Spread, &meant)?;
            let (max_skew, min_domains) = (constraint.max_skew, constraint.min_domains);
            spread.push((Spread { counter, max_skew, min_domains, own: 0 }, meant));
        }
        Ok(spread)
    }

    /// Gives a class what its pods say.
    fn enter(&mut self, class: usize, said: &Said) -> Result<(), TooMuch> {
        if !self.packer.classes[class].ruled {
            return Ok(());
        }
        let kept = 4 * said.spread.len() + said.near.len() + said.apart.len();
        self.packer.effort.spend(KEPT * kept)?;
        let own = |meant: &[u32]| self.meaning.has_class(meant, class);
        let spread = said.spread.iter().map(|(spread, meant)| Spread {
            // The pod is counted by its own constraint.
            own: i64::from(own(meant)),
            ..*spread
        });
        let spread = spread.collect();
        let near_itself = !said.near.is_empty() && own(&said.near_pods);
        let class = &mut self.packer.classes[class];
        class.spread = spread;
        class.near.clone_from(&said.near);
        class.near_itself = near_itself;
        class.apart.clone_from(&said.apart);
        Ok(())
    }

    /// The anti-affinity of others against the classes.
    fn against(&mut self, classes: &[&'a Pod]) -> Result<(), TooMuch> {
        let effort = self.packer.effort;
        let mut others: Vec<(&'a Pod, Vec<u32>)> = Vec::new();
        let mut known: HashMap<Saying<'a>, usize> = HashMap::new();
        for (index, pod) in self.meaning.pods.iter().enumerate() {
            if !pod.spec.pod_anti_affinity.is_empty() {
                effort.spend(1)?;
                let at = *known.entry(saying(pod)).or_insert(others.len());
                if at == others.len() {
                    others.push((pod, Vec::new()));
                }
                others[at].1.push(index32(index));
            }
        }
        let found = self.who_is_against(classes, &others)?;
        let mut made: HashMap<(usize, Vec<usize>), usize> = HashMap::new();
        for ((class, key), against) in found {
            effort.spend(against.len())?;
            if !self.packer.classes[class].ruled {
                continue;
            }
            let topology = self.packer.topology(key)?;
            let counter = match made.get(&(topology, against.clone())) {
                Some(counter) => *counter,
                None => {
                    let counter = self.packer.counter(topology, None)?;
                    for other in &against {
                        self.count(counter, Counted::Apart, &others[*other].1)?;
                    }
                    made.insert((topology, against), counter);
                    counter
                }
            };
            self.packer.classes[class].apart.push(counter);
        }
        Ok(())
    }

    /// By class and topology key, which of the others have an anti-affinity term that means it.
    fn who_is_against(
        &self,
        classes: &[&'a Pod],
        others: &[(&'a Pod, Vec<u32>)],
    ) -> Result<Against<'a>, TooMuch> {
        let effort = self.packer.effort;
        let mut found = Against::new();
        let mut by_label: HashMap<Label<'_>, Vec<usize>> = HashMap::new();
        if others.is_empty() {
            return Ok(found);
        }
        for (class, pod) in classes.iter().enumerate() {
            effort.spend(2 * pod.labels.len())?;
            for label in pod.labels.iter() {
                by_label.entry(label).or_default().push(class);
            }
        }
        let everybody: Vec<usize> = (0..classes.len()).collect();
        for (other, (owner, _)) in others.iter().enumerate() {
            for term in &owner.spec.pod_anti_affinity {
                effort.spend(2)?;
                let Some(question) = Question::of(term, owner, true) else { continue };
                let candidates = match question.selector.required_label() {
                    Some(label) => by_label.get(&label).map_or(&[][..], Vec::as_slice),
                    None => &everybody,
                };
                effort.spend(candidates.len().saturating_mul(question.weight()))?;
                for class in candidates {
                    if question.means(classes[*class], self.packer.snapshot) {
                        effort.spend(KEPT)?;
                        let against = found.entry((*class, &term.topology_key)).or_default();
                        if against.last() != Some(&other) {
                            against.push(other);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Counts the pods that are there, and notes the counter at the classes that raise it.
    fn count(&mut self, counter: usize, counted: Counted, meant: &[u32]) -> Result<(), TooMuch> {
        let snapshot = self.packer.snapshot;
        for index in meant {
            self.packer.effort.spend(1)?;
            let index = *index as usize;
            match index.checked_sub(self.meaning.groups) {
                Some(class) => {
                    self.packer.effort.spend(KEPT)?;
                    self.packer.classes[class].raises.push(counter);
                }
                None => {
                    let members = &snapshot.groups()[index].members;
                    self.packer.count_members(counter, counted, members, self.leaving)?;
                }
            }
        }
        Ok(())
    }
}
