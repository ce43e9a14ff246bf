// The page's 3D viewer: the GLB that the page carries, turned by hand, with a slider to the person.
import * as THREE from 'three';
import { GLTFLoader } from 'gltf-loader';
import { OrbitControls } from 'orbit-controls';
import { RoomEnvironment } from 'room-environment';

const box = document.getElementById('viewer');
const root = document.documentElement;
const wanted = new URLSearchParams(location.hash.slice(1));

function fail(sentence) {
  root.dataset.viewer = 'failed';
  document.getElementById('viewer-note').textContent = sentence;
}

function bytesOf(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
}

function loadTexture(id) {
  const holder = document.getElementById(id);
  if (!holder) return Promise.resolve(null);
  return new THREE.TextureLoader().loadAsync(holder.textContent.trim()).then((texture) => {
    texture.flipY = false; // as glTF counts its rows
    texture.colorSpace = THREE.SRGBColorSpace;
    return texture;
  });
}

// One slider moves shape and colours: the albedo fades into the person's own.
function fadeInto(material, photo, amount) {
  if (!photo || !material.map) return;
  photo.anisotropy = material.map.anisotropy;
  material.onBeforeCompile = (shader) => {
    shader.uniforms.photoMap = { value: photo };
    shader.uniforms.photoShare = amount;
    shader.fragmentShader = shader.fragmentShader
      .replace('#include <map_pars_fragment>',
        '#include <map_pars_fragment>\nuniform sampler2D photoMap;\nuniform float photoShare;')
      .replace('#include <map_fragment>',
        'diffuseColor *= mix(texture2D(map, vMapUv), texture2D(photoMap, vMapUv), photoShare);');
  };
}

function materialsOf(mesh, photo, amount) {
  const lit = mesh.material;
  const flat = new THREE.MeshBasicMaterial({ map: lit.map });
  const clay = new THREE.MeshStandardMaterial({ color: 0xcfc6bb, roughness: 0.85 });
  if (lit.normalMap) { clay.normalMap = lit.normalMap; clay.normalScale = lit.normalScale; }
  const wire = new THREE.MeshBasicMaterial({ color: 0x3a4658, wireframe: true });
  for (const material of [lit, flat]) fadeInto(material, photo, amount);
  return { lit, flat, clay, wire };
}

function start(gltf, photo) {
  const renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true, preserveDrawingBuffer: true });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.toneMapping = THREE.NoToneMapping;
  box.prepend(renderer.domElement);

  const scene = new THREE.Scene();
  const room = new THREE.PMREMGenerator(renderer).fromScene(new RoomEnvironment(), 0.04);
  scene.environment = room.texture;
  scene.environmentIntensity = 0.5;
  const sun = new THREE.DirectionalLight(0xffffff, 0.7);
  scene.add(gltf.scene);

  const amount = { value: 0 };
  const meshes = [];
  gltf.scene.traverse((item) => {
    if (!item.isMesh) return;
    for (const map of [item.material.map, item.material.normalMap]) {
      if (map) map.anisotropy = 8;
    }
    meshes.push({ mesh: item, looks: materialsOf(item, photo, amount) });
  });

  const size = new THREE.Box3().setFromObject(gltf.scene, true);
  const middle = size.getCenter(new THREE.Vector3());
  const radius = size.getSize(new THREE.Vector3()).length() / 2;
  const camera = new THREE.PerspectiveCamera(24, 1, radius / 50, radius * 40);
  camera.add(sun);
  sun.position.set(-1.2 * radius, 1.6 * radius, 1.5 * radius);
  scene.add(camera);
  const controls = new OrbitControls(camera, renderer.domElement);
  controls.enableDamping = true;
  controls.enablePan = false;
  controls.minDistance = radius;
  controls.maxDistance = radius * 12;
  controls.autoRotateSpeed = 1.6;
  controls.target.copy(middle);

  const angles = { front: 0, 'three-quarter': 40, side: 90, back: 180 };
  function look(name) {
    const angle = THREE.MathUtils.degToRad(angles[name] ?? 0);
    const distance = radius / Math.sin(THREE.MathUtils.degToRad(12)) * 0.76;
    camera.position.set(
      middle.x + distance * Math.sin(angle), middle.y + 0.05 * distance,
      middle.z + distance * Math.cos(angle));
    controls.update();
  }

  function slide(value) {
    amount.value = value;
    for (const { mesh } of meshes) {
      const index = mesh.morphTargetDictionary?.Photoreal;
      if (index !== undefined) mesh.morphTargetInfluences[index] = value;
    }
  }

  function shade(name) {
    for (const item of meshes) item.mesh.material = item.looks[name] ?? item.looks.lit;
  }

  const slider = document.getElementById('photoreal');
  const able = meshes.some(({ mesh }) => mesh.morphTargetDictionary?.Photoreal !== undefined);
  slider.closest('label').hidden = !able;
  slider.addEventListener('input', () => slide(slider.valueAsNumber));
  const shading = document.getElementById('shading');
  shading.addEventListener('change', () => shade(shading.value));
  const turn = document.getElementById('turn');
  turn.addEventListener('change', () => { controls.autoRotate = turn.checked; });
  for (const button of document.querySelectorAll('[data-look]')) {
    button.addEventListener('click', () => { turn.checked = controls.autoRotate = false; look(button.dataset.look); });
  }
  renderer.domElement.addEventListener('pointerdown', () => { turn.checked = controls.autoRotate = false; });

  // "#photoreal=1&shading=flat&view=side" opens the page that way.
  slider.value = wanted.get('photoreal') ?? 0;
  slide(slider.valueAsNumber);
  if (wanted.has('shading')) { shading.value = wanted.get('shading'); shade(shading.value); }
  look(wanted.get('view') ?? 'front');
  turn.checked = controls.autoRotate = false;

  function fit() {
    const { clientWidth: width, clientHeight: height } = box;
    renderer.setSize(width, height);
    camera.aspect = width / height;
    camera.zoom = Math.min(1, camera.aspect);
    camera.updateProjectionMatrix();
  }
  new ResizeObserver(fit).observe(box);
  fit();
  let pictures = 0;
  renderer.setAnimationLoop(() => {
    controls.update();
    renderer.render(scene, camera);
    pictures += 1;
    root.dataset.drawn = pictures;
    if (pictures === 2) {
      document.getElementById('viewer-note').textContent = '';
      root.dataset.viewer = 'ready';
    }
  });
}

try {
  const [gltf, photo] = await Promise.all([
    new GLTFLoader().parseAsync(bytesOf('glb'), ''), loadTexture('photo-albedo')]);
  start(gltf, photo);
} catch (error) {
  fail(`The 3D viewer could not start here (${error.message ?? error}); avatar.glb beside this page opens in any glTF viewer.`);
}
