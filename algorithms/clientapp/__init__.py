"""What several ClientApps share: messages, weights between Flower and torch, the cohort's folder, FedProx's term."""
