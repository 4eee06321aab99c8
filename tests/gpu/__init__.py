"""What is run on a machine with a GPU: `run.sh` verifies everything, `cifar.sh` trains, distils and compares."""
