# Convoy on NVIDIA's TensorFlow, which brings CUDA, NCCL, MPI, DALI and Horovod: scripts/docker/build.sh builds it.
# 25.02 is the last that NVIDIA made. Another base needs TensorFlow 2.17 to 2.21, and Horovod for several GPUs.
ARG FROM_IMAGE=nvcr.io/nvidia/tensorflow:25.02-tf2-py3
# hadolint ignore=DL3006
FROM ${FROM_IMAGE}
# Workers of a Kubernetes MPIJob run sshd; versions are those of the base's distribution.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends openssh-server && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /run/sshd
# As in the MPI operator's own base image: hosts are new pods each time, whose keys nobody knows, and .ssh is a mounted
# Secret, in which known_hosts cannot be written and whose permissions sshd would refuse.
RUN printf '%s\n' 'Host *' '  StrictHostKeyChecking no' '  UserKnownHostsFile /dev/null' > /etc/ssh/ssh_config.d/mpi.conf \
 && echo 'StrictModes no' > /etc/ssh/sshd_config.d/mpi.conf
# In no package registry. Without it the log has the same lines, from Convoy's own writer.
RUN python3 -m pip install --no-cache-dir "dllogger @ git+https://github.com/NVIDIA/dllogger@v1.1.0"
WORKDIR /workspace
COPY . .
# launch.sh runs as the user who calls it: all may read, and write in the mounted folders alone.
RUN scripts/docker/install.sh && chmod -R a+rX .
ENV DATA_DIR=/data MODEL_DIR=/model INFER_DIR=/infer_data
CMD ["bash"]
