// The wheels that libtorch comes in, by the checksums of their files, and what is taken out of each.
//
// The NVIDIA versions are the ones that torch's own metadata pins. Any Python version's torch wheel will do: they hold
// the same libraries. The C++ libraries of the CPU part need two small NVIDIA wheels too (libcupti, libcudart).

import { type Flavour, LIBTORCH_VERSION } from "../addon/libtorch.ts";

export interface WheelFile {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

export interface Wheel {
  /** The name that pip knows it by. */
  readonly project: string;
  readonly version: string;
  /** The flavours that need it. */
  readonly flavours: readonly Flavour[];
  /** One per Python version, or the only one. */
  readonly files: readonly WheelFile[];
}

/** Which wheels a flavour needs. */
export const wheelsOf = (flavour: Flavour): Wheel[] =>
  WHEELS.filter(({ flavours }) => flavours.includes(flavour));

const LICENCES = /^[^/]+\.dist-info\/(licenses\/.*|METADATA)$|^nvidia\/[^/]+\/LICENSE[^/]*$/;
const HEADERS =
  /^torch\/include\/|^torchgen\/packaged\/(ATen\/native\/(native_functions|tags)|autograd\/(derivatives|deprecated))\.yaml$/;
const CPU =
  /^torch\/lib\/(libc10|libtorch_cpu|libgomp[^/]*)\.so|^nvidia\/cu13\/lib\/lib(cupti|cudart)\.so|^torch\/version\.py$/;
/** All libraries, without those that serve Python. */
const CUDA =
  /^torch\/lib\/(?!libtorch_python|libshm)[^/]+\.so|^nvidia\/.*\/lib\/[^/]+\.so|^torch\/version\.py$/;

/** Whether a member of a wheel is wanted. Folders are made as needed. */
export function isWanted(member: string, flavour: Flavour, headers: boolean): boolean {
  if (member.endsWith("/")) return false;
  return (
    LICENCES.test(member) ||
    (flavour === "cpu" ? CPU : CUDA).test(member) ||
    (headers && HEADERS.test(member))
  );
}

/** What a flavour takes on the disk, unpacked, in bytes, with headers. For the check of free room. */
export const UNPACKED: Readonly<Record<Flavour, number>> = { cpu: 500e6, cu130: 3_800e6 };

export const WHEELS: readonly Wheel[] = [
  {
    project: "torch",
    version: LIBTORCH_VERSION,
    flavours: ["cpu", "cu130"],
    files: [
      {
        name: "torch-2.11.0-cp310-cp310-manylinux_2_28_x86_64.whl",
        size: 530_589_207,
        sha256: "1b32ceda909818a03b112006709b02be1877240c31750a8d9c6b7bf5f2d8a6e5",
      },
      {
        name: "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        size: 530_604_548,
        sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
      },
      {
        name: "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        size: 530_712_279,
        sha256: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
      },
      {
        name: "torch-2.11.0-cp313-cp313-manylinux_2_28_x86_64.whl",
        size: 530_711_509,
        sha256: "cc89b9b173d9adfab59fd227f0ab5e5516d9a52b658ae41d64e59d2e55a418db",
      },
      {
        name: "torch-2.11.0-cp313-cp313t-manylinux_2_28_x86_64.whl",
        size: 530_596_026,
        sha256: "98bb213c3084cfe176302949bdc360074b18a9da7ab59ef2edc9d9f742504778",
      },
      {
        name: "torch-2.11.0-cp314-cp314-manylinux_2_28_x86_64.whl",
        size: 530_716_756,
        sha256: "4dc8b3809469b6c30b411bb8c4cad3828efd26236153d9beb6a3ec500f211a60",
      },
      {
        name: "torch-2.11.0-cp314-cp314t-manylinux_2_28_x86_64.whl",
        size: 530_613_405,
        sha256: "563ed3d25542d7e7bbc5b235ccfacfeb97fb470c7fee257eae599adb8005c8a2",
      },
    ],
  },
  {
    project: "nvidia-cuda-cupti",
    version: "13.0.85",
    flavours: ["cpu", "cu130"],
    files: [
      {
        name: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        size: 10_715_597,
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
      },
    ],
  },
  {
    project: "nvidia-cuda-runtime",
    version: "13.0.96",
    flavours: ["cpu", "cu130"],
    files: [
      {
        name: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        size: 2_243_632,
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
      },
    ],
  },
  {
    project: "nvidia-cublas",
    version: "13.1.0.3",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
        size: 423_133_236,
        sha256: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
      },
    ],
  },
  {
    project: "nvidia-cuda-nvrtc",
    version: "13.0.88",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        size: 90_215_200,
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
      },
    ],
  },
  {
    project: "nvidia-cudnn-cu13",
    version: "9.19.0.56",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl",
        size: 366_066_321,
        sha256: "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
      },
    ],
  },
  {
    project: "nvidia-cufft",
    version: "12.0.0.61",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        size: 214_085_489,
        sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
      },
    ],
  },
  {
    project: "nvidia-cufile",
    version: "1.15.1.6",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        size: 1_223_672,
        sha256: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
      },
    ],
  },
  {
    project: "nvidia-curand",
    version: "10.4.0.35",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        size: 59_544_258,
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
      },
    ],
  },
  {
    project: "nvidia-cusolver",
    version: "12.0.4.66",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        size: 200_941_980,
        sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
      },
    ],
  },
  {
    project: "nvidia-cusparse",
    version: "12.6.3.3",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        size: 145_942_937,
        sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
      },
    ],
  },
  {
    project: "nvidia-cusparselt-cu13",
    version: "0.8.0",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl",
        size: 169_884_119,
        sha256: "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
      },
    ],
  },
  {
    project: "nvidia-nccl-cu13",
    version: "2.28.9",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
        size: 196_493_177,
        sha256: "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
      },
    ],
  },
  {
    project: "nvidia-nvjitlink",
    version: "13.0.88",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        size: 40_713_933,
        sha256: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
      },
    ],
  },
  {
    project: "nvidia-nvshmem-cu13",
    version: "3.4.5",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        size: 60_412_546,
        sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
      },
    ],
  },
  {
    project: "nvidia-nvtx",
    version: "13.0.85",
    flavours: ["cu130"],
    files: [
      {
        name: "nvidia_nvtx-13.0.85-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        size: 148_047,
        sha256: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
      },
    ],
  },
];
