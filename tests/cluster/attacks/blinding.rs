//! Objects that a tenant or an agent may write, and that would blind the controller.
