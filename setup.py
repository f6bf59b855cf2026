# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One package for colcon (ament_python) and for plain pip."""
from glob import glob

from setuptools import find_packages, setup

setup(
    name='ros_vseg',
    version='0.1.0',
    description='Streaming semantic segmentation of camera images for ROS 2',
    long_description=open('README.md', encoding='utf-8').read(),
    long_description_content_type='text/markdown',
    author='The ros_vseg authors',
    maintainer='The ros_vseg authors',
    maintainer_email='maintainers@ros-vseg.example',
    license='Apache-2.0',
    keywords=['ROS', 'semantic segmentation', 'video', 'camera'],
    python_requires='>=3.10',
    packages=find_packages(include=['ros_vseg', 'ros_vseg.*']),
    package_data={'ros_vseg': [
        'py.typed', 'bundle.schema.json', 'gpu/*.cu', 'label_sets/*.yaml', 'models/*',
        'demo_clip/*/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/ros_vseg']),
        ('share/ros_vseg', ['package.xml']),
        ('share/ros_vseg/launch', sorted(glob('launch/*.launch.py'))),
        ('share/ros_vseg/config', sorted(glob('config/*'))),
    ],
    zip_safe=True,
    # ROS itself is no pip requirement: it comes from a distribution (package.xml) or, for
    # the Makefile's own environment, from requirements/ros-*.txt.
    install_requires=[
        'jsonschema>=3.2',
        'numba>=0.57',
        'numpy>=1.22',
        'onnx>=1.14',
        'onnxruntime>=1.16',
        # 4.13 and newer make black or stale frames of interlaced videos; 4.12 wants a NumPy
        # without wheels for Python 3.14
        'opencv-python-headless>=4.5.4,<4.13',
        'opencv-python-headless<4.12; python_version >= "3.14"',
        'openvino>=2024.0',
        'pyyaml>=5.4',
        'rosbags>=0.11',
        'tqdm>=4.57',
    ],
    extras_require={
        # NVIDIA desktop GPUs: `gpu` with driver 580 or newer (CUDA 13), `gpu12` with driver 525 or
        # newer (CUDA 12); a Jetson has most of it from JetPack: docs/jetson.md
        'gpu': [
            'cuda-bindings>=13.0',
            'nvidia-cuda-nvrtc>=13.0',
            'tensorrt-rtx-cu13>=1.4; platform_machine == "x86_64"',
        ],
        'gpu12': [
            'cuda-bindings>=12.9,<13',
            'nvidia-cuda-nvrtc-cu12>=12.6',
        ],
        'completion': ['argcomplete>=2.0'],     # Tab in the shell: docs/guide.md
        'rerun': ['rerun-sdk>=0.41'],   # vseg run --rerun
        'nvtx': ['nvtx'],   # names what the host does in Nsight Systems
        'test': [
            'argcomplete>=2.0',
            'flake8',
            'flake8-builtins',
            'flake8-comprehensions',
            'flake8-docstrings',
            'flake8-import-order',
            'flake8-quotes',
            'hypothesis',
            'import-linter',
            'mypy',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'setuptools>=70',
        ],
    },
    entry_points={'console_scripts': [
        'vseg_node = ros_vseg.nodes.vseg_node:main',
        'replay = ros_vseg.nodes.replay:main',
        'record = ros_vseg.nodes.record:main',
        'cloud = ros_vseg.nodes.cloud_program:main',
        'vseg = ros_vseg.commands.cli:main',
    ]},
)
